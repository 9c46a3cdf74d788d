"""Sampling, and the figures of a block; none of it may end a training."""

import dataclasses
import errno
import math
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
from toy_task import OpenToyTask
from usage_samples import usage

from citeflow.paths import RunPaths
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.training import resources
from citeflow.training.checkpoint import Progress
from citeflow.training.prometheus import metric_texts
from citeflow.training.resources import (
    MAX_SAMPLES,
    RankUsage,
    ResourceMonitor,
    Sampler,
    others_share,
    thin,
)
from citeflow.utils.system import cores_of_machine

NAMES = OpenToyTask.names


class Scripted:
    """Reads 1, 2, 3, ... and may fail at one of them."""

    def __init__(self, fails_at=None):
        self.count = 0
        self.fails_at = fails_at

    def __call__(self):
        self.count += 1
        if self.count == self.fails_at:
            raise OSError("gone")
        return usage(self.count, rss_bytes=float(self.count))


def wait(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_sampler_samples_from_the_start_of_its_block_to_its_end():
    shown = []
    with Sampler(Scripted(), interval_s=0.001, on_sample=lambda *pair: shown.append(pair)) as run:
        wait(lambda: len(shown) >= 3)
    count = len(run.samples)
    assert [sample.at for sample in run.samples] == list(range(1, count + 1))
    assert [(before.at, after.at) for before, after in shown[:3]] == [(1, 2), (2, 3), (3, 4)]
    assert run.samples_until_now()[-1].at == count + 1
    assert not run.is_running


@pytest.mark.parametrize("fails_at", [1, 3])
def test_sampler_ends_alone_when_a_figure_vanishes(capsys, fails_at):
    read = Scripted(fails_at)
    with Sampler(read, interval_s=0.001) as run:
        wait(lambda: not run.is_running)
    assert (read.count, len(run.samples)) == (fails_at, fails_at - 1)
    assert capsys.readouterr().err.count("samples resources no more why=gone") == 1
    with Sampler(Scripted(), interval_s=0.001, on_sample=lambda before, after: 1 / 0) as run:
        wait(lambda: not run.is_running)
    assert "why=division" in capsys.readouterr().err
    idle = Scripted()
    with pytest.raises(KeyError), Sampler(idle, interval_s=100):
        raise KeyError
    assert idle.count == 1


def test_sampler_does_not_wait_for_a_read_that_hangs(monkeypatch):
    monkeypatch.setattr(resources, "JOIN_S", 0.05)
    reads = []
    wake = threading.Event()

    def read():
        reads.append(1)
        if len(reads) > 1:
            wake.wait(10)
        return usage(len(reads))

    with Sampler(read, interval_s=0.001):
        wait(lambda: len(reads) > 1)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    wake.set()


def test_sampler_thins_a_long_run():
    read = Scripted()
    with Sampler(read, interval_s=1e-6) as run:
        wait(lambda: read.count > 3 * MAX_SAMPLES)
        times = [sample.at for sample in run.samples]
    assert times[0] == 1
    assert times[1] - times[0] > times[-1] - times[-2]


def test_sampler_never_shows_more_samples_than_it_keeps(monkeypatch):
    """A reader that comes between adding a sample and thinning has to wait for both."""
    real = resources.thin
    seen = []

    def thin_while_read(samples):
        reader = threading.Thread(target=lambda: seen.append(len(run.samples)))
        reader.start()
        reader.join(0.05)
        return real(samples)

    monkeypatch.setattr(resources, "MAX_SAMPLES", 4)
    monkeypatch.setattr(resources, "thin", thin_while_read)
    run = Sampler(Scripted(), interval_s=1e-6)
    with run:
        wait(lambda: len(seen) >= 3)
    assert max(seen) <= 4


@pytest.mark.parametrize("count", [6, 7])
def test_thin_keeps_ends_counters_and_peaks(count):
    samples = [usage(at, rss_bytes=9.0 if at == 3 else 1.0) for at in range(count)]
    few = thin(samples)
    assert (few[0], few[-1].at, few[-1].cpu_s) == (samples[0], samples[-1].at, samples[-1].cpu_s)
    assert len(few) == 1 + count // 2
    assert max(sample.rss_bytes for sample in few) == 9
    assert dataclasses.replace(few[2], rss_bytes=1.0) == samples[4]


def rank_usage(cpu_cores, machine_cores, num_machine_cores=4.0):
    return RankUsage(
        samples=[],
        cpu_cores=cpu_cores,
        machine_cores=machine_cores,
        num_machine_cores=num_machine_cores,
        cpu_s=0.0,
        peak_rss_bytes=0.0,
    )


def test_others_share_is_the_mean_of_what_is_left_on_each_machine():
    of_two = [rank_usage(1.0, 3.0), rank_usage(1.0, 3.0)]
    of_none = [rank_usage(1.5, 2.9), rank_usage(1.5, 2.9)]
    assert others_share(of_two, 2) == pytest.approx(0.25)
    assert others_share([*of_two, *of_none], 2) == pytest.approx(0.125)
    assert others_share([*of_two, *of_none], 1) == pytest.approx((0.5 + 0.5 + 0.35 + 0.35) / 4)
    assert math.isnan(others_share([rank_usage(1.0, math.nan)], 1))
    assert math.isnan(others_share([*of_two, rank_usage(1.0, 2.0, math.nan)], 2))


@pytest.mark.skipif(math.isnan(cores_of_machine()), reason="a container with less than all cores")
def test_monitor_tells_a_busy_process_from_its_own_work(group, run):
    spin = "print(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) as other:
        try:
            other.stdout.readline()
            with ResourceMonitor(group, run, NAMES, step=0) as monitor:
                with monitor.fitting(Progress()):
                    time.sleep(1)
                busy = monitor.gather().train["others_share"]
        finally:
            other.kill()
    assert busy > 0.2 / psutil.cpu_count()


def monitored(group, run, step=0, **how):
    """Summary of a block in which nothing is trained."""
    with ResourceMonitor(group, run, NAMES, step=step, **how) as monitor:
        with monitor.fitting(Progress(step=step)):
            sum(range(200_000))
        return monitor.gather()


@pytest.fixture
def run(tmp_path):
    return RunPaths(tmp_path, "r")


def steps_shown(folder, tag="resources/memory_gib"):
    paths = sorted(folder.iterdir())
    return [entry.step for path in paths for entry in event_files.read_scalars(path, tag)]


def test_monitor_summarizes_shows_and_costs(group, run):
    summary = monitored(group, run)
    assert 0 < summary.train["cpu_cores"] < 2
    assert summary.train["peak_memory_bytes"] > 1e7
    assert summary.cost.cpu_seconds > 0
    assert summary.cost.seconds > 0
    assert summary.cost.peak_rss_bytes > 1e7
    assert [rank.rank for rank in summary.series.ranks] == [0]
    assert steps_shown(run.logs / "rank-0") == [0]


def test_monitor_of_a_resumed_training_purges_later_samples(group, run):
    monitored(group, run)
    monitored(group, run, step=7)
    first, second = sorted((run.logs / "rank-0").iterdir())
    assert (event_files.first_step(first), event_files.first_step(second)) == (0, 7)


def test_monitor_of_a_fresh_training_deletes_ranks_it_has_not(group, run):
    for name in ("rank-1", "rank-12", "rank-x", "else"):
        (run.logs / name).mkdir(parents=True)
    monitored(group, run, step=7)
    assert (run.logs / "rank-1").exists()
    monitored(group, run)
    assert {path.name for path in run.logs.iterdir()} == {"rank-0", "rank-x", "else"}


def test_monitor_survives_a_folder_or_disk_without_room(group, run, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run.logs.mkdir(parents=True)
    (run.logs / "rank-0").touch()
    assert monitored(group, run).train["peak_memory_bytes"] > 1e7
    assert "shows no resources in TensorBoard" in capsys.readouterr().err
    (run.logs / "rank-0").unlink()
    monkeypatch.setattr(ResourceLog, "add", full)
    assert monitored(group, run).train["peak_memory_bytes"] > 1e7
    told = "shows no more resources in TensorBoard step=0 why=No space left"
    assert capsys.readouterr().err.count(told) == 1


def test_monitor_survives_figures_that_are_gone(group, run, capsys):
    summary = monitored(group, run, read=Scripted(fails_at=1))
    assert set(summary.train) <= {"cpu_cores", "others_share", "peak_memory_bytes"}
    assert summary.series.ranks[0].memory_bytes == [None]
    assert capsys.readouterr().err.count("samples resources no more") == 1


PROGRESS = Progress(step=3, samples=9, history=[{"loss": 0.5}], evaluations=[{"valid_r2": 0.25}])
STEPS = {"citeflow_train_step": 3, "citeflow_train_points_total": 9}
SCORES = {"citeflow_train_valid_r2": 0.25, "citeflow_train_loss": 0.5}
SPENT = {"steps": 9.0, "start": 1.0}
ACCOUNT = {"citeflow_train_goodput_ratio": 0.9, "citeflow_train_lost_seconds": {"start": 1.0}}


@pytest.mark.parametrize(
    ("progress", "known"),
    [
        (None, {}),
        (Progress(step=3, samples=9), STEPS),
        (PROGRESS, STEPS | SCORES),
        (Progress(step=3, samples=9, spent=SPENT), STEPS | ACCOUNT),
    ],
)
def test_monitor_has_the_metrics_of_its_task_once_they_are_known(group, run, progress, known):
    with ResourceMonitor(group, run, NAMES, step=0) as monitor:
        if progress:
            with monitor.fitting(progress):
                values = monitor.metrics()
        else:
            values = monitor.metrics()
    assert {name: value for name, value in values.items() if "train" in name} == known
    assert values.keys() <= metric_texts(NAMES).keys()
    assert values["citeflow_process_resident_memory_bytes"] > 1e7
    assert 0 < values["citeflow_volume_free_bytes"] <= values["citeflow_volume_size_bytes"]
