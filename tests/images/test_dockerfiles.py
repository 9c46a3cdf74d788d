import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dockerfiles import IMAGES, environment, file, instructions, last, of_image, stages

PINNED = re.compile(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}")


each_image = pytest.mark.parametrize("image", IMAGES)


@pytest.fixture
def text(checkout):
    return file(checkout).read_text()


def test_hadolint_has_nothing_to_say(checkout, text):
    beside = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    result = subprocess.run(
        [hadolint, "--no-color", file(checkout)], capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in text


def test_every_image_stands_on_one_base_that_is_slim_pinned_by_digest_and_can_be_chosen(checkout):
    first = instructions(checkout)[0]
    assert first.name == "ARG"
    assert PINNED.fullmatch(first.text.removeprefix("PYTHON="))
    every = stages(checkout)
    assert set(IMAGES) < set(every)
    assert {below for below, _ in every.values()} <= {"${PYTHON}", *every}


@each_image
def test_the_image_runs_as_a_user_without_rights(checkout, image):
    assert last(checkout, image, "USER").text == "1000:1000"


@each_image
def test_an_init_is_process_1_and_no_shell_is_between(checkout, image):
    assert last(checkout, image, "ENTRYPOINT").argv[:2] == ["tini", "--"]
    assert isinstance(last(checkout, image, "CMD").argv, list)


def test_nothing_is_fetched_but_by_pip_with_hashes_and_from_debian(checkout):
    names = {each.name for each in instructions(checkout)}
    assert names.isdisjoint({"ADD", "HEALTHCHECK", "SHELL", "ONBUILD", "VOLUME"})
    for run in [each.text for each in instructions(checkout) if each.name == "RUN"]:
        assert not re.search(r"\b(curl|wget|git|sudo)\b", run)
        for command in re.findall(r"pip (?:install|wheel)[^&]*", run):
            assert "--no-cache-dir" in command
            assert "--no-deps" in command
            assert "--require-hashes" in command or "--no-index" in command
        assert "apt-get install" not in run or "rm -rf /var/lib/apt/lists/*" in run


def test_no_index_and_no_secret_is_written_into_an_image(text):
    assert "://" not in text
    assert not re.search(r"index-url|password|token|ARG PIP|ENV PIP", text, re.I)
    assert all(
        "type=secret,id=pip,target=/etc/pip.conf" in run
        for run in re.findall(r"--mount=type=secret\S*", text)
    )


def test_names_of_images_have_a_version(text):
    assert ":latest" not in text


@each_image
def test_labels_say_what_the_image_is(checkout, image):
    label = of_image(checkout, image)[-1]
    assert label.name == "LABEL"
    assert f'image.title="citeflow-{image}"' in label.text
    for key in ("description", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{key}=" in label.text


@pytest.mark.parametrize("image", ["train", "step"])
def test_what_changes_often_comes_after_what_changes_seldom(checkout, image):
    whole = "\n".join(each.text for each in of_image(checkout, image))
    order = ["apt-get install", "/torch.txt", "/requirements.txt", "/wheel/*.whl", "opencontainers"]
    assert sorted(order, key=whole.index) == order


def test_step_and_train_share_their_large_layers(checkout):
    every = stages(checkout)
    assert every["train"][0] == every["step"][0] == "libraries"
    assert "torch" in " ".join(each.text for each in every["libraries"][1])


@pytest.mark.parametrize("image", ["small", "tensorboard"])
def test_images_without_torch_read_none_of_its_locks(checkout, image):
    whole = " ".join(each.text for each in of_image(checkout, image))
    assert set(re.findall(r"docker/(\w+)/", whole)) == {image}


@each_image
def test_no_cache_needs_a_home(checkout, image):
    variables = environment(checkout, image)
    assert variables["HOME"] == "/tmp"
    assert variables["USER"]
    assert all(
        value.startswith("/tmp") for name, value in variables.items() if name.endswith("DIR")
    )


def test_only_what_is_copied_is_sent_to_the_builder(checkout):
    kept = [
        line
        for line in (checkout / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert kept[0] == "*"
    allowed = [line.removeprefix("!") for line in kept if line.startswith("!")]
    assert allowed == [
        "docker/**/*.txt",
        "pipelines/*/pipeline.yaml",
        "pyproject.toml",
        "README.md",
        "src/citeflow",
    ]


def test_what_is_copied_exists_and_is_sent_to_the_builder(checkout):
    copies = [each.text for each in instructions(checkout) if each.name == "COPY"]
    for source in [word for text in copies for word in text.split()[:-1]]:
        for torch in ("cpu", "cuda"):
            copied = source.replace("${TORCH}", torch)
            assert list(checkout.glob(copied))
            assert copied.split("/")[0] in {
                "docker",
                "pipelines",
                "pyproject.toml",
                "README.md",
                "src",
            }


def test_the_wheel_holds_every_pipeline_that_is_compiled(checkout):
    settings = tomllib.loads((checkout / "pyproject.toml").read_text())
    held = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    files = {
        path.relative_to(checkout).as_posix(): path.parent.name
        for path in checkout.glob("pipelines/*/*.yaml")
    }
    wanted = {
        path: f"citeflow/compiled/{name}.yaml"
        for path, name in files.items()
        if path.endswith("pipeline.yaml")
    }
    assert held == wanted
