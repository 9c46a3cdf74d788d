"""The architecture, read off the imports: which part may import which, and what stays pure."""

import ast
import re
import subprocess
import sys

import pytest

LAYERS = [
    {"errors"},
    {"utils"},
    {"files"},
    {"config", "paths", "report", "artifacts", "attempts", "own_model"},
    {"data"},
    {"graph"},
    {"models", "sampling"},
    {"evaluation", "reporting"},
    {"tasks", "training", "serving"},
    {"kubernetes"},
    {"kubeflow", "doctor"},
    {"stages", "local_runs"},
    {"experiments"},
    {"platform"},
    {"cli", "__main__"},
]
"""Parts of citeflow from the bottom up; each imports what lies below it."""

PURE = ("models", "sampling", "evaluation/metrics", "graph/csr")
IMPURE = {
    "os", "pathlib", "io", "shutil", "subprocess", "time", "datetime", "random", "tempfile",
    "multiprocessing",
}  # fmt: skip
WRITES = {
    "write_text", "write_bytes", "savez", "save_file", "copyfile", "copytree", "rmtree", "rename",
}  # fmt: skip
LIBRARY_WRITES = {("np", "save"), ("torch", "save"), ("os", "replace"), ("shutil", "move")}
TRAIN_EXTRA = ("torch", "torch_geometric", "matplotlib", "safetensors", "sklearn", "tensorboard")


def imports(path):
    """Yield every module that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.fixture(scope="module")
def modules(checkout):
    """Every file of the library, with its name below `citeflow` and the part that it belongs to."""
    source = checkout / "src" / "citeflow"
    names = {
        path: path.relative_to(source).with_suffix("").as_posix() for path in source.rglob("*.py")
    }
    return {path: (name, name.split("/")[0]) for path, name in names.items()}


def test_parts_import_only_from_below(modules):
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    for path, (name, part) in modules.items():
        if name == "__init__":
            continue
        assert part in level, f"{path}: which layer is it in?"
        for imported in imports(path):
            if name == "config" and imported.startswith("citeflow.models.predictors"):
                continue  # plain records, whose names are the choices of a setting
            other = imported.split(".")[1] if imported.startswith("citeflow.") else part
            if other in level and other != part:
                assert level[other] <= level[part], f"{path} imports {imported}"


def test_modules_have_no_circles(modules):
    edges = {}
    known = {
        f"citeflow.{name.replace('/', '.').removesuffix('.__init__')}"
        for name, _ in modules.values()
    }
    for path, (name, _) in modules.items():
        top = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)
        ]
        found = {node.module for node in top} | {
            f"{node.module}.{alias.name}" for node in top for alias in node.names
        }
        edges[f"citeflow.{name.replace('/', '.').removesuffix('.__init__')}"] = found & known
    done = set()

    def visit(module, trail):
        assert module not in trail, f"a circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for other in edges.get(module, ()):
                visit(other, [*trail, module])
            done.add(module)

    for module in edges:
        visit(module, [])


def test_kubeflow_alone_imports_kfp(modules):
    for path, (_, part) in modules.items():
        packages = {name.split(".")[0] for name in imports(path)}
        assert not packages & {"components", "pipelines"}, path
        assert part in ("kubeflow", "doctor", "cli") or "kfp" not in packages, path


def test_servers_alone_import_the_web_framework(modules):
    for path, (_, part) in modules.items():
        packages = {name.split(".")[0] for name in imports(path)}
        is_server = part in ("serving", "platform")
        assert is_server or not packages & {"fastapi", "starlette", "uvicorn"}, path


def test_the_driver_alone_imports_ray(modules):
    for path, (name, _) in modules.items():
        packages = {name.split(".")[0] for name in imports(path)}
        assert name == "training/ray_driver" or "ray" not in packages, path
        assert "citeflow.training.ray_driver" not in set(imports(path)), path


def test_components_import_only_kfp_and_the_library(checkout):
    allowed = {"kfp", "citeflow", "components", "typing", "google"}
    paths = [*checkout.glob("components/*.py"), *checkout.glob("components/*/component.py")]
    for path in [*paths, *checkout.glob("pipelines/*/pipeline.py")]:
        assert {name.split(".")[0] for name in imports(path)} <= allowed, path


def test_core_is_pure(modules):
    """No processes, disks or clocks where the field's formulas are."""
    for path, (name, _) in modules.items():
        if not name.startswith(PURE):
            continue
        imported = set(imports(path))
        assert not {name.split(".")[0] for name in imported} & IMPURE, path
        assert not any(name.startswith("torch.distributed") for name in imported), path
        calls = [
            node.func
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        ]
        assert "open" not in {call.id for call in calls if isinstance(call, ast.Name)}, path


def test_files_alone_writes(modules):
    for path, (_, part) in modules.items():
        if part == "files":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                assert owner == "files" or node.func.attr not in WRITES, f"{path}:{node.lineno}"
                assert (owner, node.func.attr) not in LIBRARY_WRITES, f"{path}:{node.lineno}"


def test_workers_alone_can_reach_code_of_ones_own(modules):
    """Only a worker says that it may run."""
    callers = set()
    for path, (name, _) in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and ast.unparse(node) == "runs_code=True":
                callers.add(name)
    assert callers == {"training/worker"}


BANNED = re.compile(r"\b(whoever|begun|lastwords|foretell|tellable)\b", re.IGNORECASE)
"""Words of a language of our own, which CONTRIBUTING's glossary replaces by the field's."""


def test_prose_keeps_to_the_glossary(modules):
    for path in modules:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not BANNED.search(line), f"{path}:{number}: {line.strip()}"


def test_docstrings_begin_with_the_thing_or_an_imperative(modules):
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
                first = (ast.get_docstring(node) or "").split(" ")[0]
                assert first not in ("What", "Whether", "Who", "Whoever", "How", "Why"), (
                    f"{path}: {first}"
                )


def run_without(packages, code):
    """Run code where packages are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); {code}"
    command = [sys.executable, "-c", blocked]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_compile_works_without_the_train_extra():
    code = (
        "import citeflow.graph.preparation; from citeflow.cli.main import main; "
        "sys.exit(main(['compile', '--check']))"
    )
    done = run_without(TRAIN_EXTRA, code)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_works_without_kfp_and_kubernetes():
    code = "import citeflow.stages, citeflow.training.worker, citeflow.cli.main"
    assert run_without(("kfp", "kubernetes", "ray"), code).returncode == 0


@pytest.mark.parametrize("package", ["kfp", "torch", "ray", "fastapi", "uvicorn"])
def test_run_names_a_missing_package_before_it_begins(package, tmp_path):
    argv = ["run", "--data-root", str(tmp_path / "data")]
    argv += ["--launcher", "ray"] if package == "ray" else []
    argv += ["--open"] if package in ("fastapi", "uvicorn") else []
    done = run_without((package,), f"from citeflow.cli.main import main; sys.exit(main({argv!r}))")
    assert done.returncode == 72
    assert done.stderr.startswith(f"error: package is not installed: {package}\nhint: pip install")
    assert not (tmp_path / "data").exists()
