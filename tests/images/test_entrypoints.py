"""The commands of the images, from the locks, in a clean environment confined as a pod is.

Installing takes minutes, so most tests run with CITEFLOW_IMAGES=1 only, as root.
"""

import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from dockerfiles import IMAGES, environment, last

ANY_USER = 12345
CONFINE = """
mount --options remount,bind,ro /
mount --types tmpfs --options mode=1777 tmpfs /tmp
ip link set lo up 2> /dev/null || true
cd /
drop="--clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all"
exec setpriv --reuid {user} --regid {user} $drop "$@"
"""
EXECUTOR = """
program=$(mktemp -d)
module="$program/ephemeral_component.py"
printf 'def step(text: str) -> str:\\n    return text.upper()\\n' > "$module"
python3 -m kfp.dsl.executor_main --component_module_path "$module" --executor_input '{
  "inputs": {"parameterValues": {"text": "runs"}},
  "outputs": {"parameters": {"Output": {"outputFile": "/tmp/out/Output"}},
              "outputFile": "/tmp/out/executor.json"}}' --function_to_execute step
cat /tmp/out/executor.json
"""


def argv(checkout, image):
    """Return the command of an image, without the init."""
    init, dashes, *command = [
        *last(checkout, image, "ENTRYPOINT").argv,
        *last(checkout, image, "CMD").argv,
    ]
    assert (init, dashes) == ("tini", "--")
    return command


@pytest.mark.parametrize("image", IMAGES)
def test_command_of_an_image_exists(checkout, image):
    program, *options = argv(checkout, image)
    if program != "python3":
        assert program == "tensorboard"
        assert shutil.which(
            program, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
    elif importlib.util.find_spec(options[1].partition(".")[0]) is None:
        pytest.skip(f"{options[1]} is not installed here")
    else:
        assert options[0] == "-m"
        assert importlib.util.find_spec(options[1])


def pip(python, *arguments, target=None):
    """Run pip of another environment, as the Dockerfile does."""
    common = ["--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
    subprocess.run(
        [python, "-m", "pip", *arguments[:1], *common, *arguments[1:]],
        check=True,
        cwd=target,
        timeout=900,
    )


def locks(checkout):
    """Return the lock files of each image, in order."""
    docker = checkout / "docker"
    train = [docker / "train/torch-cpu.txt", docker / "train/requirements.txt"]
    return {
        "train": train,
        "step": [*train, docker / "step/requirements.txt"],
        "serve": [*train, docker / "serve/requirements.txt"],
        "ray": [*train, docker / "ray/requirements.txt"],
        "small": [docker / "small/setuptools.txt", docker / "small/requirements.txt"],
        "tensorboard": [docker / "tensorboard/requirements.txt"],
        "wheel": [docker / "wheel.txt"],
    }


@pytest.fixture(scope="module")
def environment_of(checkout):
    """Create a clean environment for an image, outside of /tmp; returns its bin."""
    python = shutil.which("python3.11", path="/usr/local/bin:/usr/bin")
    if os.environ.get("CITEFLOW_IMAGES") != "1":
        pytest.skip("it installs each image's lock: minutes; CITEFLOW_IMAGES=1 asks for it")
    if (
        os.geteuid() != 0
        or not shutil.which("unshare")
        or not shutil.which("setpriv")
        or python is None
    ):
        pytest.skip("it needs root, unshare, setpriv, and a python3.11 that every user may run")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        root.chmod(0o755)

        @functools.cache
        def make(image):
            subprocess.run([python, "-m", "venv", root / image], check=True, timeout=120)
            made = root / image / "bin/python3"
            for file in locks(checkout)[image]:
                pip(made, "install", "--no-build-isolation", "--require-hashes", "-r", file)
            if image == "wheel":
                pip(made, "wheel", "--no-index", "--no-build-isolation", "-w", root, checkout)
            elif image != "tensorboard":
                make("wheel")
                pip(made, "install", "--no-index", *root.glob("citeflow-*.whl"))
            subprocess.run([made, "-m", "pip", "check"], check=True, timeout=120)
            return made.parent

        yield make


@pytest.fixture
def start(checkout, environment_of):
    """Start a command as a container of an image, with any user and a read-only home."""
    running = []

    def start(image, *command):
        variables = environment(checkout, image) | {"HOME": "/", "TMPDIR": "/tmp"}
        variables["PATH"] = f"{environment_of(image)}:/usr/sbin:/usr/bin:/sbin:/bin"
        space = ["unshare", "--mount", "--pid", "--net", "--fork", "--mount-proc", "--kill-child"]
        confined = [*space, "sh", "-euc", CONFINE.format(user=ANY_USER), "sh", *command]
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(
                confined, env=variables, stdout=pipe, stderr=subprocess.STDOUT, text=True
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def ended(process):
    """Return the output of a process once it has succeeded."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def script(checkout, image):
    """Return what docker/try.sh runs inside an image."""
    text = (checkout / "docker/try.sh").read_text()
    assert text.count("docker run ") == text.count('docker run "${confined[@]}"') == len(IMAGES)
    scripts = re.findall(r"<<'INSIDE'\n(.*?)^INSIDE$", text, re.S | re.M)
    return dict(zip(("train", "step", "serve", "tensorboard", "ray"), scripts, strict=True))[image]


def test_workers_train_and_leave_a_model(start, checkout):
    output = ended(start("train", "bash", "-euc", script(checkout, "train")))
    assert '"path": "/tmp/citeflow-data/runs/try/model"' in output


@pytest.mark.parametrize("image", ["step", "small"])
def test_step_starts_as_kfp_starts_it(start, image):
    assert '"Output": "RUNS"' in ended(start(image, "bash", "-euc", EXECUTOR))


def test_pipeline_runs_in_a_step_image(start, checkout):
    assert "evaluate" in ended(start("step", *argv(checkout, "step")))
    assert "mrr" in ended(start("step", "bash", "-euc", script(checkout, "step"))).lower()


def test_server_answers_for_an_index_that_it_is_given(start, checkout):
    assert '"predictions"' in ended(start("serve", "bash", "-euc", script(checkout, "serve")))


def test_tensorboard_answers_only_below_its_prefix(start, checkout):
    output = ended(start("tensorboard", "bash", "-euc", script(checkout, "tensorboard")))
    assert "caught SIGTERM" in output
