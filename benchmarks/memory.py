"""Compare the estimate of the memory that a training needs with the peak of a run here.

    python benchmarks/memory.py DATA_ROOT 2 run --dataset hepth --set train.epochs=2

All behind the number of workers goes to `citeflow`. The memory of its processes is read from
/proc/PID/smaps, over and over, for a third of a core: private and shared pages, and of the mapped
files those that stay in use, which are code and citations; pages that several processes map count
once. Prints one JSON object with MiB: the estimate, the peak while workers ran without the command
itself (with `run` that is the step that trains), the same with it, and the peak of the whole
command.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from citeflow.tasks.citation import CitationTask

MIB = 2**20
BUSY_SHARE = 0.3
SHORTEST_S = 0.05
KEPT_FILES = (".so", "/python3", "_ptr.npy", "_index.npy")
"""Parts of the names of mapped files whose pages stay in use."""
WORKER = "citeflow.training.worker"


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
    peaks = _sample(process)
    if process.returncode:
        raise SystemExit(process.returncode)
    (job_file,) = (
        file for file in options.data_root.glob("runs/**/job.json") if file.stat().st_mtime >= began
    )
    job = json.loads(job_file.read_text())
    estimate = CitationTask().memory_needed(Path(job["data"]), job["config"], options.workers)
    mib = {"estimate": estimate, **peaks}
    print(json.dumps({key: round(value / MIB) for key, value in mib.items()}))


def _sample(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Take samples until a process ends; the peaks in bytes."""
    peaks = {"training_step": 0, "training": 0, "command": 0}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        began = time.monotonic()
        try:
            below = root.children(recursive=True)
            trains = any(WORKER in _command(each) for each in below)
            all_bytes = _used([root, *below])
            peaks["command"] = max(peaks["command"], all_bytes)
            if trains:
                peaks["training"] = max(peaks["training"], all_bytes)
                peaks["training_step"] = max(peaks["training_step"], _used(below))
        except psutil.NoSuchProcess:
            continue
        time.sleep(max(SHORTEST_S, (time.monotonic() - began) / BUSY_SHARE))
    return peaks


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _used(processes: list[psutil.Process]) -> int:
    """Add up what the kernel cannot take back from some processes, in bytes."""
    total = 0
    shared: dict[tuple[str, str], int] = {}
    for process in processes:
        try:
            maps = process.memory_maps(grouped=False)
        except psutil.Error:  # it has ended
            continue
        for entry in maps:
            is_file = entry.path.startswith("/") and not entry.path.startswith("/dev/zero")
            if not is_file:
                total += entry.pss
                continue
            total += entry.anonymous
            in_memory = entry.path.startswith("/dev/shm/")
            if in_memory or any(part in entry.path for part in KEPT_FILES):
                # By the size of the mapping: each process has it elsewhere.
                first, end = (int(address, 16) for address in entry.addr.split("-"))
                key = (entry.path, f"{end - first}{entry.perms}")
                shared[key] = max(shared.get(key, 0), entry.rss - entry.anonymous)
    return total + sum(shared.values())


if __name__ == "__main__":
    main()
