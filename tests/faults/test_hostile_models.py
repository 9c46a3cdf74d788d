"""Row F47: hostile code as one's own model. Each ends in one line, and nothing gets out.

A real worker runs each in a real sandbox, without torchrun above it, which would start it thrice.
`test_own_model.py` has hostile files that are refused before anything runs, `models/test_own.py`
modules that do not fit.
"""

import os
import socket
import sys

import psutil
import pytest

from citeflow import config, files, own_model
from citeflow.errors import CiteflowError
from citeflow.paths import RunPaths
from citeflow.training import launch, sandbox

PROBLEM = sandbox.find_problem()
pytestmark = pytest.mark.skipif(bool(PROBLEM), reason=f"no sandbox here: {PROBLEM}")

SECRET = "hunter2-b7e1"

ONE_WORKER = """
import os
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", LOCAL_WORLD_SIZE="1",
                  MASTER_ADDR="127.0.0.1", MASTER_PORT="29500")
from citeflow.training import worker
worker.main()
"""

HEAD = """
import ctypes, os, pathlib, signal, socket, subprocess, sys, time
run = pathlib.Path(sys.argv[-1]).parent
"""

END = """
raise RuntimeError("still here")
"""

GCN = """
import torch
class Encoder(torch.nn.Module):
    def __init__(self, settings):
        super().__init__()
        self.linear = torch.nn.Linear(settings.num_features, settings.hidden_channels)
    def forward(self, x, adj):
        return adj @ self.linear(x)
def build(settings):
    return Encoder(settings)
"""

HOSTILE = {
    # The network.
    "connects to a server here": (
        "socket.create_connection(('127.0.0.1', {port}), 5)",
        "ConnectionRefusedError",
    ),
    "connects to an abstract socket": (
        "socket.socket(socket.AF_UNIX).connect('\\0citeflow-{port}')",
        "ConnectionRefusedError",
    ),
    "connects to elsewhere": (
        "socket.create_connection(('192.0.2.1', 80), 5)",
        "Network is unreachable",
    ),
    "asks for a name": ("socket.getaddrinfo('example.org', 80)", "gaierror"),
    # Files.
    "reads the users": ("raise RuntimeError(open('/etc/passwd').read())", "FileNotFoundError"),
    "reads a home": ("raise RuntimeError(open('{home}/key').read())", "FileNotFoundError"),
    "lists the system": ("raise RuntimeError(os.listdir('/etc'))", "'hosts'"),
    "writes elsewhere": ("open('{home}/key', 'w')", "FileNotFoundError"),
    "writes to the packages": (
        "import citeflow; open(citeflow.__file__, 'a')",
        "Read-only file system",
    ),
    "writes to the data": ("open('{graph}/manifest.json', 'a')", "Read-only file system"),
    "changes its job": ("open(sys.argv[-1], 'w')", "Read-only file system"),
    "replaces its job": ("os.rename(sys.argv[-1], str(run / 'other'))", "resource busy"),
    "changes the kernel": ("open('/proc/sys/kernel/core_pattern', 'w')", "Read-only file system"),
    "reads the environment of its guard": (
        "raise RuntimeError(open('/proc/1/environ').read())",
        "Error",
    ),
    "leaves a link": ("os.symlink('/etc/passwd', run / 'model')" + END, "no plain file"),
    "leaves a pipe for an error": (
        "os.mkfifo(run / 'error.json'); time.sleep(99)",
        " plain file",
    ),
    "leaves a program with rights": (
        "p = run / 'x'; p.touch(); p.chmod(0o4755)" + END,
        "no plain file",
    ),
    "writes a huge file": (
        "with open(run / 'x', 'wb') as f:\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN); f.truncate(1 << 40)",
        "File too large",
    ),
    "fills its scratch": (
        "with open('/tmp/x', 'wb') as f:\n    while True: f.write(bytes(1 << 24))",
        "OSError",
    ),
    # What is told.
    "reads its environment": ("raise RuntimeError(dict(os.environ))", "RuntimeError: {"),
    "prints escape codes": (
        "print('\\x1b]0;owned\\x07\\x1b[2J', flush=True); raise RuntimeError('\\x1b[31mred')",
        "RuntimeError: \N{REPLACEMENT CHARACTER}[31mred",
    ),
    "forges its error": (
        '(run / \'error.json\').write_text(\'{{"kind": "ConfigError", "what": '
        '"\\\\u001b[2J", "exit_code": 0}}\'); time.sleep(99)',
        "error: \N{REPLACEMENT CHARACTER}[2J",
    ),
    "leaves a huge error": (
        "(run / 'error.json').write_text('[' * (1 << 20)); time.sleep(99)",
        "not a JSON file",
    ),
    # Processes.
    "ends well at import": ("os._exit(0)", "ended without a model"),
    "ends badly at import": ("os._exit(7)", "ended with exit code: 7"),
    "kills itself": ("os.kill(os.getpid(), signal.SIGKILL)", "ended with exit code: 137"),
    "kills its parent": ("os.kill(os.getppid(), 9); os.kill(1, 9)" + END, "still here"),
    "kills all": ("os.kill(-1, signal.SIGKILL)" + END, "ProcessLookupError"),
    "leaves a daemon": (
        "if not os.fork():\n    os.setsid()\n    if not os.fork(): time.sleep(600)\n"
        "    os._exit(0)" + END,
        "still here",
    ),
    "is a fork bomb": (
        "while True:\n    if not os.fork(): time.sleep(600)",
        "over its limit: ",  # of processes, or of the memory that they hold together
    ),
    "takes all memory": (
        "held = []\nwhile True: held.append(b'x' * (1 << 26))",
        "over its limit: 1.5 GiB of memory",
    ),
    "makes namespaces": (
        "raise RuntimeError(ctypes.CDLL(None).unshare(0x10000000))",
        "RuntimeError: -1",
    ),
    "never ends": ("while True: pass", "model.code takes too long: 2 s"),
    "never ends, whatever comes": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "over its limit: ",
    ),
    "prints without an end": ("while True: print('y' * 100)", "model.code takes too long: 2 s"),
    # What a training uses.
    "replaces what saves": (
        GCN + "import safetensors.torch\n"
        "torch.save = safetensors.torch.save_file = print\n"
        "os.environ['LD_PRELOAD'] = '/tmp/x'",
        None,
    ),
}
SHORT = {"never ends", "prints without an end"}
"""Cases that wait for `sandbox.build_s`."""

FAST = {"connects to a server here", "reads its environment", "leaves a link", "leaves a daemon"}
"""Cases that every run of the tests has; the others are slow together."""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A home with a secret, a server that counts its guests, and a worker without torchrun."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "key").write_text(SECRET)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CITEFLOW_TOKEN", SECRET)
    command = [sys.executable, "-P", "-c", ONE_WORKER]
    monkeypatch.setattr(launch, "torchrun_command", lambda workers: command)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port = server.getsockname()[1]
        abstract.bind(f"\0citeflow-{port}")
        abstract.listen()
        yield {"home": home, "port": port}
        for each in (server, abstract):
            each.setblocking(False)
            with pytest.raises(BlockingIOError):
                each.accept()


def train(prepared, source, root, **limits):
    """Train with a file of code; returns the run."""
    file = root / "hostile.py"
    file.write_text(source)
    changes = {
        "model": {"code": str(file), "hidden_channels": 4},
        "train": {"epochs": 0.1, "num_validations": 1},
        "sandbox": {"processes": 16, "memory_gib": 1.5, **limits},
    }
    settings = own_model.bring(config.changed(prepared.config, changes), root / "data")
    run = RunPaths(root / "data", "run")
    launch.train_locally(prepared.graph, run, config=settings, workers=1)
    return run


def snapshot(*folders):
    """The files outside of the sandbox, with their content."""
    return {
        path: files.sha256_of_file(path)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def leftovers(run):
    """Processes that still belong to a run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if str(run.job_file) in (process.info["cmdline"] or ()) and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.fault("F47", nightly=name not in FAST))
        for name in HOSTILE
    ],
)
def test_hostile_code_ends_in_one_line_and_nothing_gets_out(name, world, prepared, tmp_path, capfd):
    body, expected = HOSTILE[name]
    source = HEAD + body.format(graph=prepared.graph, **world)
    outside = (world["home"], prepared.graph)
    before = snapshot(*outside)
    limits = {"file_gib": 0.5}
    limits |= {"build_s": 2.0} if name in SHORT else {}
    limits |= {"hours": 25 / 3600} if "whatever" in name else {}
    run = RunPaths(tmp_path / "data", "run")
    if expected is None:
        train(prepared, source, tmp_path, **limits)
        assert files.verify(run.model, "TrainedModel").facts["code"]
        assert own_model.is_evaluated(run.model, run.report)
    else:
        with pytest.raises(CiteflowError) as caught:
            train(prepared, source, tmp_path, **limits)
        lines = str(caught.value).splitlines()
        assert expected in lines[0], lines
        assert len(lines) <= 2
        assert all(line.isprintable() for line in lines)
        assert SECRET not in str(caught.value)
        assert caught.value.exit_code
    assert snapshot(*outside) == before
    assert leftovers(run) == []
    printed = "".join(capfd.readouterr())
    assert SECRET not in printed
    assert "\x1b" not in printed
    assert "Traceback" not in printed
    for path in run.folder.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.is_file()
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
