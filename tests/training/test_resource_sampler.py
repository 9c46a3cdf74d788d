"""The thread that samples: how many it keeps, and that it ends nothing but itself."""

import dataclasses
import time

import pytest

from citeflow.training import resource_sampler
from citeflow.training.resource_sampler import MOST_SAMPLES, Sampler, thinned
from citeflow.utils.usage import Source, Usage


def sample(at, **more):
    return Usage(
        **{**dict.fromkeys(Usage.__slots__, 0.0), "at": float(at), "cpu_s": float(at), **more}
    )


class Scripted:
    """A source that tells numbers in turn, and may fail at one of them."""

    def __init__(self, fails_at=None):
        self.count, self.fails_at = 0, fails_at

    def read(self):
        self.count += 1
        if self.count == self.fails_at:
            raise OSError("gone")
        return sample(self.count, rss_bytes=float(self.count))


def wait(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_samples_are_taken_from_beginning_to_end():
    with Sampler(Source(), interval_s=0.01) as running:
        wait(lambda: len(running.samples) >= 3)
        seen_before = len(running.samples)
    times = [seen.at for seen in running.until_now()]
    assert times == sorted(times)
    count = len(running.samples)
    assert count > seen_before
    time.sleep(0.05)
    assert len(running.samples) == count


def test_each_sample_is_told_with_the_one_before():
    told = []
    with Sampler(Scripted(), interval_s=0.001, tell=lambda *pair: told.append(pair)):
        wait(lambda: len(told) >= 3)
    assert [(before.at, after.at) for before, after in told[:3]] == [(1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_source_that_vanishes_ends_the_sampling_alone_and_is_told_once(capsys, fails_at):
    source = Scripted(fails_at)
    with Sampler(source, interval_s=0.001) as running:
        wait(lambda: not running._thread.is_alive())
        time.sleep(0.02)
    assert source.count == fails_at
    assert len(running.samples) == fails_at - 1
    assert capsys.readouterr().err.count("samples resources no more why=gone") == 1


def test_a_block_that_fails_is_not_held_up_by_a_last_sample():
    source = Scripted()
    with pytest.raises(KeyError), Sampler(source, interval_s=100):
        raise KeyError
    assert source.count == 1


def test_a_failure_in_telling_ends_the_sampling_alone(capsys):
    def fail(before, after):
        raise ZeroDivisionError("bug")

    with Sampler(Scripted(), interval_s=0.001, tell=fail) as running:
        wait(lambda: not running._thread.is_alive())
    assert "why=bug" in capsys.readouterr().err


def test_a_source_that_hangs_does_not_keep_the_end_waiting(monkeypatch):
    monkeypatch.setattr(resource_sampler, "END_S", 0.05)
    source = Scripted()
    with Sampler(source, interval_s=0.001):
        wait(lambda: source.count > 1)
        source.read = lambda: time.sleep(1) or sample(0)
        time.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 0.9


def test_a_long_run_keeps_few_samples_and_takes_them_less_often():
    with Sampler(Scripted(), interval_s=1e-5) as running:
        wait(lambda: running._source.count > 4 * MOST_SAMPLES)
        times = [seen.at for seen in running.samples]
    assert len(times) <= MOST_SAMPLES
    assert times[0] == 1
    assert times[1] - times[0] > times[-1] - times[-2]
    assert running._interval_s >= 4e-5


@pytest.mark.parametrize("count", [6, 7])
def test_thinning_keeps_both_ends_the_counters_and_the_peaks(count):
    samples = [sample(at, rss_bytes=9.0 if at == 3 else 1.0) for at in range(count)]
    few = thinned(samples)
    assert (few[0], few[-1].at, few[-1].cpu_s) == (samples[0], samples[-1].at, samples[-1].cpu_s)
    assert len(few) == 1 + count // 2
    assert max(seen.rss_bytes for seen in few) == 9
    assert dataclasses.replace(few[2], rss_bytes=0.0) == dataclasses.replace(
        samples[4], rss_bytes=0.0
    )
