import ast
import subprocess
import sys

import pytest

ALLOWED = {
    "errors": set(),
    "config": {"errors", "values"},
    "values": {"errors"},
    "console": set(),
    "files": {"errors"},
    "runs": {"errors", "console"},
    "form": {"errors", "config", "console", "runs", "cluster"},
    "stopping": {"errors"},
    "lastwords": {"errors", "files"},
    "artifacts": {"errors", "files", "lastwords", "stopping"},
    "learning": {"errors", "config", "graph"},
    "data": {"errors", "config", "console", "files"},
    "graph": {"errors", "config", "console", "files", "data"},
    "tracking": {"errors", "console", "files", "runs", "reporting"},
    "reporting": {"errors", "config", "console", "files"},
    "monitoring": {"errors", "console", "cores"},
    "cluster": {
        "errors",
        "config",
        "values",
        "console",
        "files",
        "cores",
        "graph",
        "evaluation",
        "training",
        "monitoring",
    },
}
"""What a part may import of citeflow, besides itself; a part that is not named here is free of these, but see below."""

TOP = {
    "__main__",
    "cli",
    "pipeline",
    "steps",
    "compilation",
    "stages",
    "submission",
    "demo",
    "experiments",
}
"""Nothing below these imports them."""

PURE_NOT = {
    "os",
    "pathlib",
    "io",
    "shutil",
    "subprocess",
    "time",
    "datetime",
    "random",
    "tempfile",
    "multiprocessing",
}
WRITES = {
    "write_text",
    "write_bytes",
    "savez",
    "save_file",
    "copyfile",
    "copytree",
    "rmtree",
    "rename",
}
LIBRARY_WRITES = {("np", "save"), ("torch", "save"), ("os", "replace"), ("shutil", "move")}


def imports(path):
    """Yield every module that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts(path):
    """Yield the parts of citeflow that a file imports."""
    for name in imports(path):
        if name.startswith("citeflow."):
            yield name.split(".")[1]


@pytest.fixture(scope="module")
def modules(checkout):
    """Every file of the library with the part that it belongs to."""
    source = checkout / "src" / "citeflow"
    return {
        path: path.relative_to(source).parts[0].removesuffix(".py") for path in source.rglob("*.py")
    }


def names_of_parts(modules):
    return set(modules.values())


def test_the_parts_import_only_what_lies_below_them(modules):
    known = names_of_parts(modules)
    for path, part in modules.items():
        imported = set(parts(path)) & known - {part}
        if part in ALLOWED:
            assert imported <= ALLOWED[part], f"{path} imports {imported - ALLOWED[part]}"
        elif part not in TOP:
            assert not imported & TOP, f"{path} imports {imported & TOP}"


def test_stages_know_nothing_of_pipelines_and_steps_nothing_of_the_command_line(modules):
    for path, part in modules.items():
        if part == "stages":
            assert not set(parts(path)) & {"cli", "pipeline", "steps", "compilation"}
        if part in ("steps", "pipeline", "compilation"):
            assert "cli" not in set(parts(path))


def test_the_library_knows_neither_components_nor_pipelines_nor_the_dsl(modules):
    for path, part in modules.items():
        imported = set(imports(path))
        assert not {name.split(".")[0] for name in imported} & {"components", "pipelines"}, path
        assert not any(name.startswith("kfp.dsl") for name in imported), path
        assert part in ("pipeline", "compilation", "submission", "kfpapi") or "kfp" not in {
            name.split(".")[0] for name in imported
        }, path


def test_components_import_only_kfp_and_the_library(checkout):
    allowed = {"kfp", "citeflow", "components", "typing", "google"}
    for path in [*checkout.glob("components/**/*.py"), *checkout.glob("pipelines/**/*.py")]:
        extra = {"argparse", "sys"} if path.name == "submit.py" else set()
        assert {name.split(".")[0] for name in imports(path)} <= allowed | extra, path


def test_the_pure_core_touches_neither_processes_nor_disks_nor_clocks(modules):
    for path, part in modules.items():
        if part == "learning":
            imported = set(imports(path))
            assert not {name.split(".")[0] for name in imported} & PURE_NOT, path
            assert not any(name.startswith("torch.distributed") for name in imported), path
            calls = [
                node.func
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Call)
            ]
            graph = {name for name in imported if name.startswith("citeflow.graph")}
            assert all(name.startswith("citeflow.graph.csr") for name in graph), path
            assert "open" not in {call.id for call in calls if isinstance(call, ast.Name)}, path


def test_only_one_module_writes_files(modules):
    for path, part in modules.items():
        if part == "files":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                attribute = node.func.attr
                assert owner == "files" or attribute not in WRITES, f"{path}:{node.lineno}"
                assert (owner, attribute) not in LIBRARY_WRITES, f"{path}:{node.lineno}"


TRAIN_EXTRA = ("torch", "torch_geometric", "matplotlib", "safetensors", "sklearn", "tensorboard")


def without(packages, code):
    """Run code where packages are not installed."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({packages!r})); {code}"
    return subprocess.run(
        [sys.executable, "-c", blocked], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_command_starts_and_compiles_where_nothing_of_the_extra_train_is_installed():
    code = "import citeflow.graph.prepared; from citeflow.cli import main; sys.exit(main(['compile', '--check']))"
    done = without(TRAIN_EXTRA, code)
    assert (done.returncode, done.stderr) == (0, "")


def test_training_works_where_kfp_is_not_installed():
    code = "import citeflow.steps, citeflow.stages, citeflow.training.worker, citeflow.cli"
    assert without(("kfp",), code).returncode == 0


def test_running_a_pipeline_where_kfp_is_not_installed_says_what_to_install():
    done = without(
        ("kfp",), "from citeflow.cli import main; sys.exit(main(['compile', '--check']))"
    )
    assert done.returncode == 69
    assert "pip install '.[train,kfp]'" in done.stderr


@pytest.mark.parametrize("package", ["kfp", "torch"])
def test_a_run_for_which_a_package_is_missing_ends_before_it_begins(package, tmp_path):
    code = f"from citeflow.cli import main; sys.exit(main(['run', '--data-root', {str(tmp_path / 'data')!r}]))"
    done = without((package,), code)
    assert done.returncode == 69
    assert done.stderr.startswith(f"error: package is not installed: {package}\nhint: pip install")
    assert not (tmp_path / "data").exists()
