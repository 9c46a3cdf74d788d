"""Sampling, the summary of all ranks and the metrics; none of it may end a training."""

import dataclasses
import errno
import json
import math
import os
import socket
import threading
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from citeflow.paths import RunPaths
from citeflow.reporting import event_files
from citeflow.reporting.tensorboard import ResourceLog
from citeflow.training import resources
from citeflow.training.checkpoint import Progress
from citeflow.training.resources import (
    MAX_SAMPLES,
    METRICS,
    PROGRESS_METRICS,
    ResourceMonitor,
    Sampler,
    serve_metrics,
    summarize,
    thin,
)
from citeflow.utils.usage import Usage

LABELS = {"run": "a", "rank": "3"}


def usage(at, **fields):
    zeros = dict.fromkeys(Usage.__slots__, 0.0)
    return Usage(**{**zeros, "at": float(at), "cpu_s": float(at), **fields})


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


def rank_samples(cores, rss, shared=0.0, count=11, start=100.0):
    """One sample a second of a rank that keeps so many cores busy."""
    held = rss if isinstance(rss, list) else [rss] * count
    return [
        usage(start + at, cpu_s=cores * at, rss_bytes=float(held[at]), shared_bytes=shared)
        for at in range(count)
    ]


def test_summarize_puts_all_ranks_on_the_clock_of_the_first():
    content, peak = summarize([rank_samples(1.0, 5e6), rank_samples(0.5, 7e6, start=5000.0)], 2)
    assert peak == 12e6
    assert content["seconds"][-1] == 10
    assert [rank["rank"] for rank in content["ranks"]] == [0, 1]
    for rank, cores, held in zip(content["ranks"], (1.0, 0.5), (5e6, 7e6), strict=True):
        assert rank["cpu_cores"] == pytest.approx([cores] * len(content["seconds"]))
        assert rank["memory_bytes"] == [held] * len(content["seconds"])


def test_summarize_counts_shared_memory_once_per_machine():
    ranks = [rank_samples(1.0, 10e6, shared=4e6, count=400) for _ in range(4)]
    content, peak = summarize(ranks, 4)
    assert peak == 4 * 6e6 + 4e6
    assert len(content["seconds"]) == len(content["ranks"][0]["cpu_cores"]) == 199
    assert summarize(ranks, 2)[1] == 4 * 6e6 + 2 * 4e6


def test_summarize_takes_the_highest_sum_of_one_moment():
    early, late = [1e6] * 11, [1e6] * 11
    early[2] = late[8] = 9e6
    content, peak = summarize([rank_samples(1.0, early), rank_samples(1.0, late)], 2)
    assert peak == 10e6
    assert max(content["ranks"][0]["memory_bytes"]) == 9e6


@pytest.mark.parametrize("lost", [[], rank_samples(1.0, 1e6, count=1)])
def test_summarize_leaves_out_a_rank_without_samples(lost):
    content, peak = summarize([rank_samples(1.0, 5e6), lost], 2)
    assert set(content["ranks"][1]["cpu_cores"]) == {None}
    assert None not in content["ranks"][0]["cpu_cores"]
    assert math.isnan(peak)
    json.dumps(content, allow_nan=False)
    content, peak = summarize([lost, rank_samples(1.0, 5e6)], 2)
    assert [set(rank["memory_bytes"]) for rank in content["ranks"]] == [{None}, {None}]
    assert math.isnan(peak)


def test_summarize_knows_a_rank_until_its_sampling_broke_off():
    content, peak = summarize([rank_samples(1.0, 5e6), rank_samples(1.0, 5e6, count=5)], 2)
    cores = content["ranks"][1]["cpu_cores"]
    assert (cores[:3], cores[-1], peak) == ([1.0] * 3, None, 10e6)


def monitored(group, run, step=0, **how):
    """Summary of a block in which nothing is trained."""
    with ResourceMonitor(group, run, step=step, **how) as monitor:
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
    assert [rank["rank"] for rank in summary.series["ranks"]] == [0]
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
    assert set(summary.train) <= {"cpu_cores", "peak_memory_bytes"}
    assert summary.series["ranks"][0]["memory_bytes"] == [None]
    assert capsys.readouterr().err.count("samples resources no more") == 1


PROGRESS = Progress(step=3, samples=9, history=[{"loss": 0.5}], evaluations=[{"valid_mrr": 0.25}])


@pytest.mark.parametrize(
    ("progress", "known"),
    [
        (None, set()),
        (Progress(), {"citeflow_train_step", "citeflow_train_citations_total"}),
        (PROGRESS, set(PROGRESS_METRICS)),
    ],
)
def test_monitor_metrics_are_nan_until_they_are_known(group, run, progress, known):
    with ResourceMonitor(group, run, step=0) as monitor:
        if progress:
            with monitor.fitting(progress):
                values = monitor.metrics()
        else:
            values = monitor.metrics()
    assert {name for name in PROGRESS_METRICS if math.isfinite(values[name])} == known
    assert values["citeflow_process_resident_memory_bytes"] > 1e7
    assert 0 < values["citeflow_volume_free_bytes"] <= values["citeflow_volume_size_bytes"]
    assert progress is not PROGRESS or values["citeflow_train_valid_mrr"] == 0.25


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def test_serve_metrics_has_names_types_and_labels(port):
    values = dict.fromkeys(METRICS, 7.0)
    with serve_metrics(str(port), lambda: values, LABELS):
        families = scrape(port)
    entries = {entry.name: entry for family in families for entry in family.samples}
    assert set(entries) == set(values)
    assert all((entry.labels, entry.value) == (LABELS, 7) for entry in entries.values())
    types = {entry.name: family.type for family in families for entry in family.samples}
    counters = {name for name, kind in types.items() if kind == "counter"}
    assert counters == {name for name in values if name.endswith("_total")}
    with (
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.1", port), timeout=5),
    ):
        pass


def test_serve_metrics_reads_at_each_scrape_and_leaves_out_nan(group, run, port, monkeypatch):
    values = {}
    with serve_metrics(str(port), lambda: values, LABELS):
        assert scrape(port) == []
        values.update(citeflow_train_step=1.0, citeflow_train_loss=math.nan)
        assert [family.name for family in scrape(port)] == ["citeflow_train_step"]
    monkeypatch.setenv("CITEFLOW_METRICS_PORT", str(port))
    with ResourceMonitor(group, run, step=0):
        (family,) = (each for each in scrape(port) if "resident" in each.name)
    assert family.samples[0].labels == {"run": "r", "rank": "0"}


def test_serve_metrics_survives_a_port_that_is_taken_or_none(capsys):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        for wrong in (str(taken.getsockname()[1]), "http"):
            with serve_metrics(wrong, dict, LABELS):
                pass
    assert capsys.readouterr().err.count("serves no metrics") == 2


def test_serve_metrics_survives_a_scrape_that_fails(port, capfd):
    def fail():
        raise ZeroDivisionError

    with serve_metrics(str(port), fail, LABELS):
        for _ in range(2):
            with pytest.raises(urllib.error.HTTPError) as caught:
                scrape(port)
            caught.value.close()
            assert caught.value.code == 500
