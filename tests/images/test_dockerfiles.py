import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dockerfiles import IMAGES, environment, file, instructions, last, of_image, stages

SENT = ["docker", "pipelines", "pyproject.toml", "LICENSE", "README.md", "src"]


def test_dockerfile_passes_hadolint(checkout):
    beside = Path(sys.executable).parent
    hadolint = shutil.which("hadolint", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    command = [hadolint, "--no-color", file(checkout)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (0, "")
    assert "hadolint ignore" not in file(checkout).read_text()


@pytest.mark.parametrize("image", IMAGES)
def test_image_has_a_user_an_init_and_labels(checkout, image):
    assert last(checkout, image, "USER").text == "1000:1000"
    assert last(checkout, image, "ENTRYPOINT").argv[:2] == ["tini", "--"]
    assert isinstance(last(checkout, image, "CMD").argv, list)
    variables = environment(checkout, image)
    assert variables["HOME"] == "/tmp"
    assert variables["USER"]
    label = of_image(checkout, image)[-1]
    assert label.name == "LABEL"
    assert f'image.title="citeflow-{image}"' in label.text
    for key in ("description", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{key}=" in label.text


def test_images_share_one_pinned_base_and_order_their_layers(checkout):
    every = stages(checkout)
    python = instructions(checkout)[0].text
    assert re.fullmatch(r"PYTHON=python:3\.\d+\.\d+-slim-\w+@sha256:[0-9a-f]{64}", python)
    assert {below for below, _ in every.values()} <= {"${PYTHON}", *every}
    whole = {image: "\n".join(each.text for each in of_image(checkout, image)) for image in IMAGES}
    order = ["apt-get install", "/torch.txt", "/requirements.txt", "/wheel/*.whl", "opencontainers"]
    for image in ("train", "step", "serve"):
        assert sorted(order, key=whole[image].index) == order
    for image in ("small", "tensorboard"):
        assert set(re.findall(r"docker/(\w+)/", whole[image])) == {image}


def test_packages_come_from_pip_with_hashes_or_from_debian(checkout):
    names = {each.name for each in instructions(checkout)}
    assert names.isdisjoint({"ADD", "HEALTHCHECK", "SHELL", "ONBUILD", "VOLUME"})
    for run in [each.text for each in instructions(checkout) if each.name == "RUN"]:
        assert not re.search(r"\b(curl|wget|git|sudo)\b", run)
        for command in re.findall(r"pip (?:install|wheel)[^&]*", run):
            assert "--no-cache-dir" in command
            assert "--no-deps" in command
            assert "--require-hashes" in command or "--no-index" in command
        assert "apt-get install" not in run or "rm -rf /var/lib/apt/lists/*" in run


def test_dockerfile_has_no_index_secret_or_latest_tag(checkout):
    text = file(checkout).read_text()
    assert "://" not in text
    assert not re.search(r"index-url|password|token|ARG PIP|ENV PIP|:latest", text, re.I)
    mounts = re.findall(r"--mount=type=secret\S*", text)
    assert set(mounts) == {"--mount=type=secret,id=pip,target=/etc/pip.conf"}


def test_builder_is_sent_what_is_copied_alone(checkout):
    lines = (checkout / ".dockerignore").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("#")]
    assert kept[0] == "*"
    allowed = [line.removeprefix("!").split("/")[0] for line in kept if line.startswith("!")]
    assert sorted(allowed) == sorted(SENT)
    copies = [each.text for each in instructions(checkout) if each.name == "COPY"]
    for source in [word for text in copies for word in text.split()[:-1]]:
        for torch in ("cpu", "cuda"):
            assert list(checkout.glob(source.replace("${TORCH}", torch)))
            assert source.split("/")[0] in SENT
