"""Containers as processes of this machine."""

import contextlib
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import psutil

MARK = "FAKE_POD_UID"
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class Process:
    """One start of a container; nothing of it outlives it."""

    def __init__(
        self, argv: list[str], environment: dict[str, str], uid: str, cwd: str | None
    ) -> None:
        self.uid = uid
        self.lines: deque[tuple[datetime, str]] = deque()
        """What it wrote, and when, for the kubelet to take away."""
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._popen = subprocess.Popen(
            argv,
            env={**own, **environment, MARK: uid},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def exit_code(self) -> int | None:
        """As a container tells it, 137 for SIGKILL; none while it runs."""
        if self._popen.poll() is None:
            return None
        self._end()
        code = self._popen.returncode
        return code if code >= 0 else 128 - code

    def terminate(self) -> None:
        self._popen.terminate()

    def kill(self) -> None:
        self._popen.kill()
        self._popen.wait(10)
        self._end()

    def _read(self) -> None:
        for line in self._popen.stdout:
            self.lines.append((datetime.now(UTC), line.rstrip("\n")))

    def _end(self) -> None:
        """A container's processes all end with its first."""
        if self._reader.is_alive() or not self._popen.stdout.closed:
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error, OSError):
                    if process.environ().get(MARK) == self.uid:
                        process.send_signal(signal.SIGKILL)
            self._reader.join(10)
            self._popen.stdout.close()


def command_of(pod: dict, replace: Callable[[str], str]) -> tuple[list[str], dict[str, str]]:
    """The argv and the environment of a pod's first container, with $(NAME) put in as the kubelet does."""
    container = pod["spec"]["containers"][0]
    environment: dict[str, str] = {}
    for entry in container.get("env") or []:
        if "valueFrom" in entry:
            environment[entry["name"]] = _value_from(entry["valueFrom"], pod, container)
        else:
            environment[entry["name"]] = _expanded(replace(entry.get("value") or ""), environment)
    words = [*(container.get("command") or []), *(container.get("args") or [])]
    argv = [_expanded(replace(word), environment) for word in words]
    if argv[0] in ("python", "python3"):
        argv[0] = sys.executable
    return argv, environment


def _expanded(text: str, environment: dict[str, str]) -> str:
    def put_in(found: re.Match) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]+)\)", put_in, text)


def _value_from(source: dict, pod: dict, container: dict) -> str:
    if "resourceFieldRef" in source:
        what, name = source["resourceFieldRef"]["resource"].split(".")
        amount = str(container["resources"][what][name])
        return str(math.ceil(float(amount[:-1]) / 1000)) if amount.endswith("m") else amount
    path = source["fieldRef"]["fieldPath"]
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return pod["metadata"].get(found[1], {}).get(found[2], "")
    value = pod
    for part in path.split("."):
        value = value[part]
    return value
