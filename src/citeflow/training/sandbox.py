"""The sandbox of bubblewrap, in which this machine trains a model with code of its own.

torchrun and all ranks live in one sandbox. It has namespaces of its own for users, processes,
network (a loopback interface alone), IPC and host name; no capabilities; of the file system Python,
its packages and the prepared data, read-only, and the folder and the logs of the run, writable. Its
environment holds a few known variables. When it ends, the kernel kills all that is left in it.

`limits.py` sets the limits of each process there; those of all together are watched from here.
"""

import contextlib
import io
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

import citeflow
from citeflow import files, own_model
from citeflow.config import SandboxConfig, TaskConfig
from citeflow.errors import CiteflowError, ConfigError, DataError, TrainingError
from citeflow.own_model import OwnFiles
from citeflow.paths import RunPaths
from citeflow.utils.logging import log, printable
from citeflow.utils.system import TORCHRUN_VARIABLES

PROGRAM = "bwrap"
PACKAGE = "bubblewrap"

TRUST_VARIABLE = "CITEFLOW_TRUST_CODE"
"""Environment variable that `--trust-code` sets for the steps of a pipeline."""

INSTALL = "apt-get install bubblewrap (0.8 or newer)"

LIMITS = "citeflow.training.limits"

SYSTEM = ("/usr", "/etc/ld.so.cache", "/etc/alternatives", "/sys/fs/cgroup")
"""What programs need of the system, if it is there: libraries, and the limits of a container."""

LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr; folders on older systems."""

VARIABLES = {
    "GLIBC_TUNABLES",
    "GLOO_SOCKET_IFNAME",
    "LANG",
    "LC_ALL",
    "NCCL_SOCKET_IFNAME",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
    "PYTHONSAFEPATH",
    *TORCHRUN_VARIABLES,
}
"""Environment variables that workers get there, if they are set."""

NAME = "sandbox"
HOSTS = f"127.0.0.1 localhost {NAME}\n"

GIB = 2**30
SCRATCH_GIB = 1
"""Size of /tmp in the sandbox."""

WATCH_S = 0.5
"""Time between two looks at the processes."""

PROBE_S = 20
ATTACH_S = 0.01
MAX_LINE = 4000
MAX_OUTPUT = 64 << 20
"""Characters of a line, and bytes of all output, that are passed on."""


def find_problem() -> str:
    """Say why no sandbox can be made here; "" if one can."""
    program = shutil.which(PROGRAM)
    if program is None:
        return "bubblewrap is not installed"
    command = [program, *_namespaces(), *_system(), "--", sys.executable, "-I", "-c", ""]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_S, check=False, errors="replace"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not start: {error}"
    lines = done.stderr.strip().splitlines()
    return "" if not done.returncode else lines[-1] if lines else f"exit code {done.returncode}"


def is_trusted() -> bool:
    """Tell whether the user said `--trust-code`."""
    return os.environ.get(TRUST_VARIABLE, "") not in ("", "0")


def require(settings: TaskConfig) -> None:
    """Check that code of one's own, if the settings name some, may run on this machine.

    Raises:
        ConfigError: there is no sandbox for it, and the user does not trust it.
    """
    if not own_model.has_code(settings) or is_trusted():
        return
    if problem := find_problem():
        hint = f"{INSTALL}; or --trust-code, if you would run the file yourself"
        raise ConfigError("no sandbox for model.code", problem, hint=hint)


@dataclass
class Sandbox:
    """A sandbox of one training."""

    run: RunPaths
    data: Path
    """Prepared data."""

    own_files: OwnFiles
    limits: SandboxConfig
    _began: float = field(default_factory=time.monotonic)
    _looked: float = 0.0
    _init: psutil.Process | None = None

    def command(self, command: list[str], environment: Mapping[str, str]) -> list[str]:
        """Return a command that runs another one in the sandbox.

        Raises:
            ConfigError: bubblewrap is not installed.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise ConfigError("no sandbox for model.code", find_problem(), hint=INSTALL)
        files.write_text(self._hosts, HOSTS)
        kept = {name: value for name, value in environment.items() if name in VARIABLES}
        # A file of the run that others read or lock is not the code's to change.
        own = (self.run.job_file, self.run.lock_file, self.run.status_file, self.run.pipeline_lock)
        read_only = [self.data, *(each for each in self.own_files if each)]
        limits = [
            f"{self.limits.memory_gib:g}",
            f"{self.limits.file_gib:g}",
            str(self.limits.processes),
        ]
        return [
            program,
            *_namespaces(),
            *_system(),
            *_bind("--ro-bind", read_only),
            *("--ro-bind", str(self._hosts), "/etc/hosts"),
            *_bind("--bind", [self.run.folder, self.run.logs]),
            *_bind("--ro-bind", [each for each in own if each.is_file()]),
            *_variables({**kept, "HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"}),
            *("--chdir", "/tmp"),
            "--",
            *(sys.executable, "-P", "-m", LIMITS, *limits, "--"),
            *command,
        ]

    def attach(self, process: subprocess.Popen[bytes]) -> None:
        """Find the first process of the sandbox, with which all others end."""
        end = time.monotonic() + PROBE_S
        while self._init is None and process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._init = next(iter(psutil.Process(process.pid).children()), None)
            time.sleep(ATTACH_S)

    def close(self) -> None:
        """Wait until nothing runs in the sandbox any more, then remove what nobody may open.

        Bubblewrap itself ends before the kernel has killed what is left.

        Raises:
            CiteflowError: something still runs.
            DataError: as `sweep`.
        """
        end = time.monotonic() + PROBE_S
        while self._init is not None and _is_alive(self._init):
            if time.monotonic() > end:
                raise CiteflowError("a sandbox does not end", self._init.pid)
            time.sleep(ATTACH_S)
        self.sweep()

    def find_excess(self, process: int) -> CiteflowError | None:
        """Return the error of a sandbox that exceeds a limit of all its processes together.

        Args:
            process: that of bubblewrap.
        """
        now = time.monotonic()
        if now - self._began > 3600 * self.limits.hours:
            return _excess("hours", f"{self.limits.hours:g} hours")
        if now - self._looked < WATCH_S:
            return None
        self._looked = now
        count, private = 0, 0
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    memory = each.memory_info()
                    private += memory.rss - memory.shared
                    count += 1
        if count > self.limits.processes + 1:  # one is bubblewrap's own
            return _excess("processes", f"{self.limits.processes} processes")
        if private > self.limits.memory_gib * GIB:
            return _excess("memory_gib", f"{self.limits.memory_gib:g} GiB of memory")
        return None

    def sweep(self) -> None:
        """Remove what nobody outside may open: links, pipes, sockets, programs with rights.

        Raises:
            DataError: there was something of the kind.
        """
        found = [path for folder in self._writable for path in _odd(folder)]
        for path in found:
            path.unlink(missing_ok=True)
        if found:
            hint = "they are removed; a model writes nothing but what a training writes"
            raise DataError("model.code left what is no plain file", _shown(found), hint=hint)

    @property
    def _hosts(self) -> Path:
        """The names that torchrun looks up."""
        return self.run.data_root.absolute() / own_model.FOLDER / "hosts"

    @property
    def _writable(self) -> tuple[Path, Path]:
        return self.run.folder, self.run.logs


def of_training(
    settings: TaskConfig, *, data: Path, run: RunPaths, own_files: OwnFiles
) -> Sandbox | None:
    """Return the sandbox that a training on this machine needs; None where no code is its own.

    Raises:
        ConfigError: there can be none, and the user does not trust the code.
        DataError: an earlier start has left what is no plain file.
    """
    require(settings)
    if not own_model.has_code(settings):
        return None
    if is_trusted():
        log("train", "runs code without a sandbox, as --trust-code says", code=own_files.code)
        return None
    limits = SandboxConfig.model_validate(settings.to_dict()["sandbox"])
    sandbox = Sandbox(run=run, data=data, own_files=own_files, limits=limits)
    files.make_directory(run.logs)
    sandbox.sweep()
    return sandbox


def pass_on(stream: IO[bytes]) -> None:
    """Write what comes from a stream to stderr, until its end, as lines of printable text."""
    passed = 0
    with io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="\n") as lines:
        while line := lines.readline(MAX_LINE):
            passed += len(line)
            if passed <= MAX_OUTPUT:
                text = printable(line.rstrip("\n").replace("\t", " "))
                print(text, file=sys.stderr, flush=True)


def _namespaces() -> list[str]:
    return [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        *("--cap-drop", "ALL"),
        *("--hostname", NAME),
        "--clearenv",
    ]


def _system() -> list[str]:
    """Return the arguments for Python, its packages, and the folders that programs expect."""
    # Not all of sys.path: it may hold the folder of a script, which may be one's home.
    source = Path(citeflow.__file__).parents[1]
    python = {
        Path(sys.prefix),
        Path(sys.base_prefix),
        source,
        Path(sys.executable).resolve().parent,
    }
    present = [Path(each) for each in SYSTEM if Path(each).exists()]
    arguments = _bind("--ro-bind", present)
    for each in map(Path, LINKS):
        if each.is_symlink():
            arguments += ["--symlink", os.readlink(each), str(each)]
        elif each.is_dir():
            arguments += _bind("--ro-bind", [each])
    outside = [path for path in sorted(python) if not path.is_relative_to("/usr")]
    return [
        *arguments,
        *("--proc", "/proc", "--remount-ro", "/proc"),
        *("--dev", "/dev"),
        *("--size", str(SCRATCH_GIB * GIB), "--tmpfs", "/tmp"),
        *_bind("--ro-bind", outside),
    ]


def _bind(option: str, paths: Iterable[Path]) -> list[str]:
    return [word for path in paths for word in (option, str(path), str(path))]


def _variables(environment: Mapping[str, str]) -> list[str]:
    return [word for pair in environment.items() for word in ("--setenv", *pair)]


def _is_alive(process: psutil.Process) -> bool:
    """Tell whether a process runs; the first of a namespace turns a zombie after all others."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _excess(name: str, limit: str) -> TrainingError:
    return TrainingError("the sandbox is over its limit", limit, hint=f"raise sandbox.{name}")


def _odd(folder: Path) -> list[Path]:
    """List what is neither folder nor plain file, or has rights of its own; follow no link."""
    found = []
    for parent, folders, names in os.walk(folder, followlinks=False):
        for name in (*folders, *names):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            is_plain = stat.S_ISREG(mode) and not mode & (stat.S_ISUID | stat.S_ISGID)
            if not is_plain and not stat.S_ISDIR(mode):
                found.append(path)
    return found


def _shown(paths: list[Path]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return printable(str(paths[0])) + more
