"""Row F14, live: what a training takes while it runs, against what was foretold."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from citeflow import config, stages
from citeflow.training import memory

SETTINGS = ["synthetic.num_papers=20000", "train.epochs=1", "train.num_validations=2"]
OFTEN_S = 0.1


def read_sizes(process: int) -> dict[str, int]:
    """Sizes of a process in bytes, by the kernel's names."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {"Rss": 0, "Anonymous": 0}
    return {name.rstrip(":"): int(number) << 10 for name, number, _ in map(str.split, lines)}


def taken(processes: list[int], shared_before: int) -> int:
    """Bytes that processes take together: what each has by itself, the files that one maps, and shared memory."""
    sizes = [read_sizes(process) for process in processes]
    mapped = max(each["Rss"] - each["Anonymous"] for each in sizes)
    shared = shutil.disk_usage("/dev/shm").used - shared_before
    return sum(each["Anonymous"] for each in sizes) + max(mapped, shared)


def peak_of(command: list[str], variables: dict[str, str]) -> int:
    """Run a command to its end; the most that it and its children took together."""
    shared_before, peak, deadline = shutil.disk_usage("/dev/shm").used, 0, time.monotonic() + 300
    with subprocess.Popen(command, env=variables) as started:
        while started.poll() is None and time.monotonic() < deadline:
            family = [
                started.pid,
                *(child.pid for child in psutil.Process(started.pid).children(recursive=True)),
            ]
            peak = max(peak, taken(family, shared_before))
            time.sleep(OFTEN_S)
        started.terminate()
    assert started.returncode == 0
    return peak


@pytest.mark.fault("F14", nightly=True)
def test_two_workers_take_at_most_a_fifth_more_or_less_than_was_foretold(tmp_path, checkout):
    settings = config.load(overrides=SETTINGS)
    raw = stages.download("synthetic", data_root=tmp_path, config=settings)
    graph = stages.preprocess(raw, data_root=tmp_path, config=settings)
    command = [
        sys.executable,
        "-m",
        "citeflow",
        "train",
        str(graph),
        "--workers",
        "2",
        "--run-name",
        "peak",
    ]
    sets = [part for each in SETTINGS for part in ("--set", each)]
    variables = {**os.environ, "PYTHONPATH": str(checkout / "src")}
    peak = peak_of([*command, "--data-root", str(tmp_path), *sets], variables)
    needed = memory.estimate(20_000, 128, 20_000 * 10.44, settings, 2)
    assert peak > 2 * memory.WORKER * 0.8  # both were seen
    assert 0.8 <= needed / peak <= 1.2
