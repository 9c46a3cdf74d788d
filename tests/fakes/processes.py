"""Containers as processes of this machine."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from datetime import UTC, datetime

import psutil

MARK = "FAKE_POD_UID"
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONPATH")


class Process:
    """One start of a container; nothing of it outlives it."""

    def __init__(self, argv, environment, uid):
        self.uid = uid
        self.lines = deque()
        """Lines with their times, which the kubelet takes away."""
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._popen = subprocess.Popen(
            argv,
            env={**own, **environment, MARK: uid},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def exit_code(self):
        """As a container reports it, 137 for SIGKILL; None while it runs."""
        if self._popen.poll() is None:
            return None
        self._end()
        code = self._popen.returncode
        return code if code >= 0 else 128 - code

    def terminate(self):
        self._popen.terminate()

    def signal_group(self, number):
        """Signal the group of the first process, as Argo does, but not a shell that waits there."""
        for process in self.members():
            with contextlib.suppress(psutil.Error, OSError):
                if os.getpgid(process.pid) == self._popen.pid and process.name() != "sh":
                    process.send_signal(number)

    def kill(self):
        self._popen.kill()
        self._popen.wait(10)
        self._end()

    def members(self):
        """Return all processes of the container."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.uid:
                    found.append(process)
        return found

    def _read(self):
        for line in self._popen.stdout:
            self.lines.append((datetime.now(UTC), line.rstrip("\n")))

    def _end(self):
        """A container's processes all end with its first."""
        if self._reader.is_alive() or not self._popen.stdout.closed:
            for process in self.members():
                with contextlib.suppress(psutil.Error, OSError):
                    process.send_signal(signal.SIGKILL)
            self._reader.join(10)
            self._popen.stdout.close()


def command_of(pod, replace):
    """Return argv and environment of the container, with $(NAME) expanded as the kubelet does."""
    container = pod["spec"]["containers"][0]
    environment = {}
    for entry in container.get("env", ()):
        if "valueFrom" in entry:
            assert entry["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
            environment[entry["name"]] = pod["status"]["podIP"]
        else:
            environment[entry["name"]] = replace(entry["value"])
    words = [*container["command"], *container.get("args", ())]
    argv = [re.sub(r"\$\((\w+)\)", lambda m: environment[m[1]], replace(word)) for word in words]
    argv[0] = sys.executable if argv[0].startswith("python") else argv[0]
    return argv, environment
