"""The sandbox of bubblewrap: its command, its limits, and what is swept out of it."""

import io
import os
import stat
import subprocess
import sys

import psutil
import pytest

from citeflow import config, own_model
from citeflow.config import SandboxConfig
from citeflow.errors import ConfigError, DataError, TrainingError
from citeflow.paths import RunPaths
from citeflow.tasks import load_settings
from citeflow.training import sandbox
from citeflow.training.limits import GIB, main
from citeflow.training.sandbox import Sandbox

OWN = config.changed(load_settings(), {"model": {"code": "a" * 64}})


@pytest.fixture
def run(tmp_path):
    paths = RunPaths(tmp_path, "run")
    for folder in (paths.folder, paths.logs):
        folder.mkdir(parents=True)
    return paths


def sandbox_of(run, **limits):
    return Sandbox(
        run=run,
        data=run.data_root / "graph",
        own_files=own_model.NO_FILES,
        limits=SandboxConfig(**limits),
    )


@pytest.fixture
def no_bubblewrap(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(sandbox.TRUST_VARIABLE, raising=False)


def test_require_refuses_code_without_a_sandbox(no_bubblewrap):
    with pytest.raises(ConfigError, match="bubblewrap is not installed") as caught:
        sandbox.require(OWN)
    assert "--trust-code" in caught.value.hint
    sandbox.require(load_settings())


def test_require_takes_the_word_of_the_user(no_bubblewrap, monkeypatch):
    monkeypatch.setenv(sandbox.TRUST_VARIABLE, "1")
    sandbox.require(OWN)


def test_find_problem_tells_what_bubblewrap_says(tmp_path, monkeypatch):
    program = tmp_path / "bwrap"
    program.write_text(
        "#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox.find_problem() == "bwrap: No permissions to create new namespace"


def test_command_binds_nothing_else_writable_and_passes_no_other_variable(run, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda program: f"/usr/bin/{program}")
    environment = {"OMP_NUM_THREADS": "2", "AWS_SECRET_ACCESS_KEY": "s", "PATH": "/home/bin"}
    words = sandbox_of(run).command(["python", "worker"], environment)
    writable = [words[i + 1] for i, word in enumerate(words) if word == "--bind"]
    assert writable == [str(run.folder), str(run.logs)]
    variables = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "--setenv"}
    assert variables == {
        "OMP_NUM_THREADS": "2",
        "HOME": "/tmp",
        "TMPDIR": "/tmp",
        "PATH": "/usr/bin:/bin",
    }
    assert {"--unshare-all", "--clearenv", "--die-with-parent", "--disable-userns"} <= set(words)
    assert words[-2:] == ["python", "worker"]


def test_command_keeps_files_of_the_run_from_the_code(run, monkeypatch):
    monkeypatch.setattr(sandbox.shutil, "which", lambda program: f"/usr/bin/{program}")
    run.job_file.touch()
    words = sandbox_of(run).command([], {})
    assert words.index(str(run.job_file)) > words.index(str(run.folder))
    assert words[words.index(str(run.job_file)) - 1] == "--ro-bind"
    assert str(run.status_file) not in words


def test_no_home_is_bound(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert str(tmp_path) not in sandbox._system()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"processes": 4}, "4 processes"),
        ({"memory_gib": 1e-9}, "1e-09 GiB of memory"),
        ({"hours": 1e-12}, "1e-12 hours"),
    ],
)
def test_find_excess_names_the_limit(run, monkeypatch, limits, expected):
    children = [psutil.Process()] * 6
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: children)
    assert sandbox_of(run).find_excess(os.getpid()) is None
    excess = sandbox_of(run, **limits).find_excess(os.getpid())
    assert isinstance(excess, TrainingError)
    assert excess.value == expected


def test_sweep_removes_what_is_no_plain_file(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("kept")
    (run.folder / "model").symlink_to(secret)
    (run.folder / "folder").symlink_to(tmp_path)
    os.mkfifo(run.logs / "pipe")
    program = run.folder / "program"
    program.touch()
    program.chmod(0o4755)
    (run.folder / "plain").write_text("kept")
    with pytest.raises(DataError, match="and 3 more") as caught:
        sandbox_of(run).sweep()
    assert str(caught.value).isprintable() or len(str(caught.value).splitlines()) == 2
    assert sorted(os.listdir(run.folder)) == ["plain"]
    assert os.listdir(run.logs) == []
    assert secret.read_text() == "kept"
    sandbox_of(run).sweep()


def test_sweep_takes_names_as_they_are(run):
    (run.folder / "\x1b[2J").symlink_to("x")
    with pytest.raises(DataError) as caught:
        sandbox_of(run).sweep()
    assert "\x1b" not in str(caught.value)


def test_pass_on_prints_text_alone(capsys):
    sandbox.pass_on(io.BytesIO(b"a\tb\x1b[31m\xff\nlast\x07"))
    assert capsys.readouterr().err == "a b\ufffd[31m\ufffd\nlast\ufffd\n"


def test_pass_on_has_an_end(capsys, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_OUTPUT", 10)
    sandbox.pass_on(io.BytesIO(b"12345678\n" * 3))
    assert capsys.readouterr().err == "12345678\n"


def test_limits_hold_for_the_command():
    code = (
        "import resource as r; print(*(r.getrlimit(each)[1] for each in "
        "(r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NPROC, r.RLIMIT_CORE)))"
    )
    command = [sys.executable, "-m", main.__module__, "1.5", "0.5", "8", "--"]
    done = subprocess.run(
        [*command, sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(int(25.5 * GIB)), str(GIB // 2), "256", "0"]


@pytest.mark.skipif(bool(sandbox.find_problem()), reason="no sandbox here")
def test_a_sandbox_has_no_way_out(run):
    (run.data_root / "graph").mkdir()
    code = (
        "import os, socket, sys; print(sorted(os.listdir('/')), os.listdir('/home') "
        "if os.path.exists('/home') else '', sorted(os.environ), os.getpid(), "
        "[name for _, name in socket.if_nameindex()], os.listdir('/etc'))"
    )
    box = sandbox_of(run)
    command = box.command([sys.executable, "-I", "-c", code], {"TOKEN": "secret"})
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=True)
    assert "['lo']" in done.stdout
    assert "TOKEN" not in done.stdout
    assert "passwd" not in done.stdout
    assert stat.S_ISREG(os.stat(run.data_root / own_model.FOLDER / "hosts").st_mode)
