import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfiles import IMAGES, environment, instructions, last

PINNED = re.compile(r"python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}")


@pytest.fixture(params=IMAGES)
def path(checkout, request):
    return checkout / "docker" / request.param / "Dockerfile"


def test_hadolint_has_nothing_to_say(path):
    beside = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    result = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in path.read_text()


def test_the_base_is_slim_and_pinned_by_digest_and_can_be_chosen(path):
    first, *rest = instructions(path)
    assert first.name == "ARG"
    assert PINNED.fullmatch(first.text.removeprefix("PYTHON="))
    stages = {each.text.split(" AS ")[1] for each in rest if each.name == "FROM" and " AS " in each.text}
    assert {each.text.split(" AS ")[0] for each in rest if each.name == "FROM"} <= {"${PYTHON}", *stages}


def test_all_images_stand_on_the_same_base(checkout):
    assert len({instructions(checkout / "docker" / image / "Dockerfile")[0].text for image in IMAGES}) == 1


def test_the_image_runs_as_a_user_without_rights(path):
    assert last(path, "USER").text == "1000:1000"


def test_an_init_is_process_1_and_no_shell_is_between(path):
    assert last(path, "ENTRYPOINT").argv[:2] == ["tini", "--"]
    assert isinstance(last(path, "CMD").argv, list)


def test_nothing_is_fetched_but_by_pip_with_hashes_and_from_debian(path):
    names = {each.name for each in instructions(path)}
    assert names.isdisjoint({"ADD", "HEALTHCHECK", "SHELL", "ONBUILD", "VOLUME"})
    for run in [each.text for each in instructions(path) if each.name == "RUN"]:
        assert not re.search(r"\b(curl|wget|git|sudo)\b", run)
        for command in re.findall(r"pip (?:install|wheel)[^&]*", run):
            assert "--no-cache-dir" in command
            assert "--no-deps" in command
            assert "--require-hashes" in command or "--no-index" in command
        assert "apt-get install" not in run or "rm -rf /var/lib/apt/lists/*" in run


def test_no_index_and_no_secret_is_written_into_the_image(path):
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"index-url|password|token|ARG PIP|ENV PIP", text, re.I)
    assert all("type=secret,id=pip,target=/etc/pip.conf" in run for run in re.findall(r"--mount=type=secret\S*", text))


def test_names_of_images_have_a_version(path):
    assert ":latest" not in path.read_text()


def test_labels_say_what_the_image_is(path):
    label = last(path, "LABEL").text
    for key in ("title", "description", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{key}=" in label
    assert instructions(path)[-1].name == "LABEL"


def test_what_changes_often_comes_after_what_changes_seldom(checkout):
    for image in ("train", "step"):
        text = (checkout / "docker" / image / "Dockerfile").read_text()
        order = [
            "apt-get install",
            "--requirement torch.txt",
            "--requirement requirements.txt",
            "/wheel/*.whl",
            "LABEL",
        ]
        assert sorted(order, key=text.index) == order


def test_step_and_train_are_the_same_up_to_their_last_stage_so_that_they_share_layers(checkout):
    def shared(image):
        every = instructions(checkout / "docker" / image / "Dockerfile")
        return every[: [each.text for each in every].index("libraries")]

    assert shared("train") == shared("step")
    assert len(shared("train")) > 10


def test_no_cache_needs_a_home(path):
    variables = environment(path)
    assert variables["HOME"] == "/tmp"
    assert variables["USER"]
    assert all(value.startswith("/tmp") for name, value in variables.items() if name.endswith("DIR"))


def test_only_what_is_copied_is_sent_to_the_builder(checkout):
    kept = [line for line in (checkout / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert kept[0] == "*"
    allowed = [line.removeprefix("!") for line in kept if line.startswith("!")]
    assert allowed == [
        "docker/**/*.txt",
        "pipelines/citation/pipeline.yaml",
        "pyproject.toml",
        "README.md",
        "src/citeflow",
    ]


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_exists_and_is_sent_to_the_builder(checkout, image):
    copies = [each.text for each in instructions(checkout / "docker" / image / "Dockerfile") if each.name == "COPY"]
    for source in [word for text in copies for word in text.split()[:-1]]:
        for torch in ("cpu", "cuda"):
            copied = source.replace("${TORCH}", torch)
            assert (checkout / copied).exists()
            assert copied.split("/")[0] in {"docker", "pipelines", "pyproject.toml", "README.md", "src"}
