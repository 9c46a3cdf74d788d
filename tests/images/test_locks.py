import itertools
import tomllib
from importlib.metadata import distributions

import pytest
from dockerfiles import lock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GPU_ONLY = ("cuda-", "nvidia-", "triton")
PYTHONS = ("3.11", "3.13")
SMALL = {"kfp", "matplotlib", "scikit-learn", "bibtexparser", "h5py", "networkx"}


@pytest.fixture(scope="module")
def project(checkout):
    return tomllib.loads((checkout / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def locks(checkout):
    """The packages of each image, from the locks that its Dockerfile reads."""
    docker = checkout / "docker"
    train = lock(docker / "train/requirements.txt")
    cpu = train | lock(docker / "train/torch-cpu.txt")
    return {
        "train": cpu,
        "train, CUDA": train | lock(docker / "train/torch-cuda.txt"),
        "step": cpu | lock(docker / "step/requirements.txt"),
        "serve": cpu | lock(docker / "serve/requirements.txt"),
        "ray": cpu | lock(docker / "ray/requirements.txt"),
        "small": lock(docker / "small/setuptools.txt") | lock(docker / "small/requirements.txt"),
        "tensorboard": lock(docker / "tensorboard/requirements.txt"),
        "wheel": lock(docker / "wheel.txt"),
        "check": lock(docker / "check.txt"),
    }


def wanted(project, image):
    """Return the requirements of an image."""
    extras, base = project["project"]["optional-dependencies"], project["project"]["dependencies"]
    train = base + extras["train"]
    return {
        "train": train,
        "train, CUDA": train,
        "step": train
        + [
            line
            for extra in ("kfp", "tune", "mlflow", "import", "platform")
            for line in extras[extra]
        ],
        "serve": train + extras["serve"],
        "ray": train + extras["kuberay"],
        "small": base
        + [
            line
            for line in train + extras["kfp"] + extras["import"]
            if Requirement(line).name in SMALL
        ],
        "tensorboard": [line for line in train if line.startswith("tensorboard")],
        "wheel": project["build-system"]["requires"],
        "check": [
            line for line in extras["dev"] if line.startswith(("hadolint", "pytest>", "ruff"))
        ],
    }[image]


IMAGES = ("train", "train, CUDA", "step", "serve", "ray", "small", "tensorboard", "wheel", "check")


@pytest.mark.parametrize("image", IMAGES)
def test_lock_satisfies_the_ranges_of_pyproject(project, locks, image):
    requirements = [Requirement(line) for line in wanted(project, image)]
    assert requirements
    for requirement in requirements:
        version, _ = locks[image][canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("image", IMAGES)
def test_lock_holds_every_dependency_of_its_packages(locks, image):
    installed = {canonicalize_name(each.name): each for each in distributions()}
    same = [installed[name] for name, (version, _) in locks[image].items()
            if name in installed and installed[name].version == version]  # fmt: skip
    if not same:
        pytest.skip("none of the locked versions is installed here")
    for distribution, python in itertools.product(same, PYTHONS):
        here = {"python_version": python, "python_full_version": f"{python}.1", "extra": "",
                "sys_platform": "linux", "platform_system": "Linux",
                "platform_machine": "x86_64"}  # fmt: skip
        for requirement in [Requirement(line) for line in distribution.requires or []]:
            if requirement.marker is None or requirement.marker.evaluate(here):
                version, _ = locks[image][canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(version), (
                    f"{distribution.name} needs {requirement}"
                )


def test_development_lock_agrees_with_pyproject_and_images(checkout, project, locks):
    text = (checkout / "requirements/dev.txt").read_text()
    assert text.startswith("# Generated ")
    assert "://" not in text
    pins = dict(line.split("==") for line in text.splitlines()[1:])
    extras = dict(project["project"]["optional-dependencies"])
    # As large as all else but torch, and needed by one launcher.
    alone = [*extras.pop("ray"), *extras.pop("kuberay")]
    lines = [*project["project"]["dependencies"], *itertools.chain(*extras.values())]
    assert not {Requirement(line).name for line in alone} & set(pins)
    for requirement in map(Requirement, [*lines, *project["build-system"]["requires"]]):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    for image in set(IMAGES) - {"train, CUDA"}:
        for name, (version, _) in locks[image].items():
            known = pins.get(name, version) if image == "ray" else pins[name]
            assert known == version.partition("+")[0]


def test_images_hold_only_what_they_need(project, locks):
    for image in ("train", "serve"):
        assert not [name for name in locks[image] if name.startswith(("kfp", "kube", *GPU_ONLY))]
    assert locks["train"]["torch"][0] == f"{locks['train, CUDA']['torch'][0]}+cpu"
    assert not {"torch", "tensorflow", "scipy"} & set(locks["tensorboard"])
    unused = {"torch", "torch-geometric", "tensorboard", "optuna"}
    assert not unused & set(locks["small"])
    development = project["project"]["optional-dependencies"]["dev"]
    for image in ("train", "step", "serve", "small", "tensorboard"):
        assert not {Requirement(line).name for line in development} & set(locks[image])


@pytest.mark.fault("F40")
def test_installs_from_a_lock_require_hashes(checkout):
    files = sorted((checkout / "docker").rglob("*.txt"))
    assert len(files) == 11
    for path in files:
        text = path.read_text()
        packages = lock(path)
        assert len(packages) == text.count("==") > 0, path
        assert all(hashes for _, hashes in packages.values())
        assert "://" not in text
    lines = (checkout / "docker" / "Dockerfile").read_text().splitlines()
    installs = [line for line in lines if "pip install" in line and "/wheel/*.whl" not in line]
    assert installs
    assert all("--require-hashes" in line for line in installs)
