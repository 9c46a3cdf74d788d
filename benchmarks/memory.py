"""Compare the estimate of the memory that a training needs with the peak of a run here.

    python benchmarks/memory.py DATA_ROOT 2 run --dataset hepth --set train.epochs=2

All behind the number of workers goes to `citeflow`. The memory of its processes is read over and
over, for a third of a core: private and shared memory from /proc/PID/smaps_rollup, where pages that
forked processes share count once, and from /proc/PID/smaps the mapped files that stay in use, which
are code and citations; pages that several processes map count once there, too.

Prints one JSON object with MiB: the estimate, the peak while workers ran without the command itself
(with `run` that is the step that trains: a pod with the command, torchrun, standbys and workers),
the same with it, what each kind of process had at that peak, and the peaks of the whole command and
of each of its steps.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from citeflow.tasks.citation import CitationTask

MIB = 2**20
BUSY_SHARE = 0.3
SHORTEST_S = 0.05
FILES_S = 1.0
"""Time between two looks at the mapped files: they take long to read, and change little."""

KEPT_FILES = (".so", "/python3", "_ptr.npy", "_index.npy")
"""Parts of the names of mapped files whose pages stay in use."""

WORKER = re.compile(r"rank \d+")
"""The name of a worker. Its arguments are those of the process that has imported what it needs, and
all processes that were forked from that one have them."""

STEP = "--function_to_execute"
"""Argument of a step, before its name."""


def main() -> None:
    """Run, sample until the command has ended, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data_root", type=Path, help="where graphs and runs are kept")
    parser.add_argument("workers", type=int, help="processes that train")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of citeflow")
    options = parser.parse_args()
    options.data_root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "citeflow", *options.arguments]
    command += ["--data-root", str(options.data_root), "--workers", str(options.workers)]
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    sampler = Sampler(psutil.Process(process.pid))
    while process.poll() is None:
        sampler.sample()
    if process.returncode:
        raise SystemExit(process.returncode)
    (job_file,) = (
        file for file in options.data_root.glob("runs/**/job.json") if file.stat().st_mtime >= began
    )
    job = json.loads(job_file.read_text())
    estimate = CitationTask().memory_needed(Path(job["data"]), job["config"], options.workers)
    print(
        json.dumps(
            {
                "estimate": round(estimate / MIB),
                **_in_mib(sampler.peaks),
                "at_peak": _in_mib(sampler.at_peak),
                "steps": _in_mib(sampler.steps),
            }
        )
    )


def _in_mib(sizes: Counter[str]) -> dict[str, int]:
    return {name: round(size / MIB) for name, size in sizes.items()}


@dataclass(slots=True)
class Sampler:
    """The memory of a process and of all below it, in bytes."""

    root: psutil.Process
    peaks: Counter[str] = field(default_factory=Counter)
    at_peak: Counter[str] = field(default_factory=Counter)
    """By kind of process, when the step that trains had most."""

    steps: Counter[str] = field(default_factory=Counter)
    """The peak of each step."""

    _files: dict[int, dict[tuple[str, str], int]] = field(default_factory=dict)
    """Mapped files of each process."""

    _looked_at: float = 0.0

    def sample(self) -> None:
        """Take a sample, and pause."""
        began = time.monotonic()
        with contextlib.suppress(psutil.NoSuchProcess):
            self._sample([self.root, *self.root.children(recursive=True)])
        time.sleep(max(SHORTEST_S, (time.monotonic() - began) / BUSY_SHARE))

    def _sample(self, processes: list[psutil.Process]) -> None:
        names = {process.pid: _name(process) for process in processes}
        own = {process.pid: _private_and_shared(process.pid) for process in processes}
        if time.monotonic() - self._looked_at > FILES_S or own.keys() - self._files.keys():
            self._files = {process.pid: _kept_files(process) for process in processes}
            self._looked_at = time.monotonic()
        below = {pid: size for pid, size in own.items() if pid != self.root.pid}
        everything = self._total(own)
        self._raise_to("command", everything)
        for step in {step for process in processes if (step := _step(process))}:
            self.steps[step] = max(self.steps[step], self._total(below))
        if not any(WORKER.fullmatch(name) for name in names.values()):
            return
        self._raise_to("training", everything)
        training = self._total(below)
        if training > self.peaks["training_step"]:
            self.at_peak = Counter({"files": training - sum(below.values())})
            for pid, size in below.items():
                self.at_peak[re.sub(r" \d+", "", names[pid])] += size
        self._raise_to("training_step", training)

    def _raise_to(self, name: str, size: int) -> None:
        self.peaks[name] = max(self.peaks[name], size)

    def _total(self, own: dict[int, int]) -> int:
        """Add up what the kernel cannot take back from some processes."""
        shared: Counter[tuple[str, str]] = Counter()
        for pid in own:
            shared |= Counter(self._files.get(pid, {}))
        return sum(own.values()) + shared.total()


def _name(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.name()
    return ""


def _step(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        arguments = process.cmdline()
        if STEP in arguments[:-1]:
            return arguments[arguments.index(STEP) + 1]
    return ""


def _private_and_shared(pid: int) -> int:
    """Return the share of a process in anonymous and shared pages."""
    total = 0
    with contextlib.suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                total += int(line.split()[1]) * 1024
    return total


def _kept_files(process: psutil.Process) -> dict[tuple[str, str], int]:
    """Return the pages of mapped files that stay in use."""
    try:
        maps = process.memory_maps(grouped=False)
    except (psutil.Error, OSError):  # it has ended
        return {}
    sizes: dict[tuple[str, str], int] = {}
    for entry in maps:
        if any(part in entry.path for part in KEPT_FILES):
            # By the size of the mapping: each process has it elsewhere.
            first, end = (int(address, 16) for address in entry.addr.split("-"))
            key = (entry.path, f"{end - first}{entry.perms}")
            sizes[key] = max(sizes.get(key, 0), entry.rss - entry.anonymous)
    return sizes


if __name__ == "__main__":
    main()
