import itertools
import sys
import tomllib
from importlib.metadata import distributions

import pytest
from dockerfiles import lock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

GPU_ONLY = ("cuda-", "nvidia-", "triton")
PYTHONS = ("3.11", "3.13")
SMALL = {"kfp", "matplotlib", "scikit-learn"}


@pytest.fixture(scope="module")
def project(checkout):
    return tomllib.loads((checkout / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def locks(checkout):
    """What each image installs, by name, of the locks that its Dockerfile reads."""
    docker = checkout / "docker"
    train = lock(docker / "train/requirements.txt")
    cpu = train | lock(docker / "train/torch-cpu.txt")
    return {
        "train": cpu,
        "train, CUDA": train | lock(docker / "train/torch-cuda.txt"),
        "step": cpu | lock(docker / "step/requirements.txt"),
        "small": lock(docker / "small/setuptools.txt") | lock(docker / "small/requirements.txt"),
        "tensorboard": lock(docker / "tensorboard/requirements.txt"),
        "wheel": lock(docker / "wheel.txt"),
        "check": lock(docker / "check.txt"),
    }


def wanted(project, image):
    """The requirements that an image is there for."""
    extras, base = project["project"]["optional-dependencies"], project["project"]["dependencies"]
    train = base + extras["train"]
    return {
        "train": train,
        "train, CUDA": train,
        "step": train + extras["kfp"] + extras["tune"] + extras["mlflow"],
        "small": base + [line for line in train + extras["kfp"] if Requirement(line).name in SMALL],
        "tensorboard": [line for line in train if line.startswith("tensorboard")],
        "wheel": project["build-system"]["requires"],
        "check": [
            line for line in extras["dev"] if line.startswith(("hadolint", "pytest", "ruff"))
        ],
    }[image]


IMAGES = ("train", "train, CUDA", "step", "small", "tensorboard", "wheel", "check")


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_satisfies_the_ranges_of_pyproject(project, locks, image):
    requirements = [Requirement(line) for line in wanted(project, image)]
    assert requirements
    for requirement in requirements:
        version, _ = locks[image][canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), requirement


@pytest.mark.parametrize("image", IMAGES)
def test_a_lock_holds_everything_that_its_packages_need_on_each_python(locks, image):
    installed = {canonicalize_name(each.name): each for each in distributions()}
    same = [installed[name] for name, (version, _) in locks[image].items()
            if name in installed and installed[name].version == version]  # fmt: skip
    if not same:
        pytest.skip(
            "none of the locked versions is installed here, so that what they need is not known"
        )
    for distribution, python in itertools.product(same, PYTHONS):
        here = {"python_version": python, "python_full_version": f"{python}.1", "extra": "",
                "sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}  # fmt: skip
        for requirement in [Requirement(line) for line in distribution.requires or []]:
            if requirement.marker is None or requirement.marker.evaluate(here):
                version, _ = locks[image][canonicalize_name(requirement.name)]
                assert requirement.specifier.contains(version), (
                    f"{distribution.name} needs {requirement}"
                )


def test_every_pin_of_every_lock_has_a_hash_and_no_lock_names_an_index(checkout):
    files = sorted((checkout / "docker").rglob("*.txt"))
    assert len(files) == 9
    for path in files:
        text = path.read_text()
        assert text.startswith("# Generated ")
        assert len(lock(path)) == text.count("==") > 0, path
        assert "://" not in text
        assert "index" not in text


def test_no_package_is_pinned_in_two_versions(locks):
    pins = {
        (name, version)
        for image in locks.values()
        for name, (version, _) in image.items()
        if name != "torch"
    }
    assert len(pins) == len({name for name, _ in pins})


def test_workers_have_no_kfp_and_tensorboard_no_torch(locks):
    assert not [name for name in locks["train"] if name.startswith(("kfp", "kube"))]
    assert not {"torch", "tensorflow", "scipy"} & set(locks["tensorboard"])


def test_the_small_image_has_neither_torch_nor_what_only_graphs_and_clusters_need(locks):
    assert not {"torch", "torch-geometric", "networkx", "tensorboard", "optuna"} & set(
        locks["small"]
    )
    assert 2 * len(locks["small"]) < len(locks["step"])


def test_what_only_development_needs_is_in_no_image(project, locks):
    development = {
        Requirement(line).name for line in project["project"]["optional-dependencies"]["dev"]
    }
    for image in ("train", "step", "small", "tensorboard"):
        assert not development & set(locks[image])


def test_cpu_and_cuda_are_the_same_torch_and_only_cuda_brings_its_libraries(locks):
    cpu, cuda = locks["train"]["torch"][0], locks["train, CUDA"]["torch"][0]
    assert cpu == f"{cuda}+cpu"
    assert not [name for name in locks["train"] if name.startswith(GPU_ONLY)]
    assert any(name.startswith("nvidia-") for name in locks["train, CUDA"])


def test_the_script_that_writes_locks_asks_for_the_oldest_python(checkout, monkeypatch):
    monkeypatch.syspath_prepend(checkout / "docker")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import lock as script

    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(SystemExit, match=r"3\.11"):
        script.main()
    assert script.name_of("Torch_Geometric>=2.7,<3") == "torch-geometric"


@pytest.mark.fault("F40")
def test_every_file_that_is_installed_from_a_lock_has_to_match_a_hash(checkout):
    paths = sorted((checkout / "docker").rglob("*.txt"))
    hashes = {path: [len(found) for _, found in lock(path).values()] for path in paths}
    assert all(min(found) >= 1 for found in hashes.values())
    installs = [
        line
        for path in (checkout / "docker").rglob("Dockerfile")
        for line in path.read_text().splitlines()
    ]
    by_pip = [line for line in installs if "pip install" in line]
    assert by_pip
    assert [
        line for line in by_pip if "--require-hashes" not in line and "/wheel/*.whl" not in line
    ] == []
