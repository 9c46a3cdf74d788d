import itertools

import pytest

from citeflow.utils.retry import Backoff, TransientError, retry


class Flaky:
    """Fails so many times before it answers."""

    def __init__(self, failures, wait_s=0.0):
        self.failures = failures
        self.wait_s = wait_s
        self.calls = 0
        self.pauses = []

    def __call__(self):
        self.calls += 1
        if self.calls <= self.failures:
            raise TransientError(f"failure {self.calls}", wait_s=self.wait_s)
        return "answer"

    def retried(self, backoff, **options):
        return retry(self, backoff, subject="test", sleep=self.pauses.append, **options)


def test_retry_doubles_pauses_up_to_longest(capsys):
    flaky = Flaky(5)
    assert flaky.retried(Backoff(first_pause_s=1, longest_pause_s=6)) == "answer"
    assert flaky.pauses == [1, 2, 4, 6, 6]
    assert "test waiting reason=failure 3 seconds=4 failures=3" in capsys.readouterr().err


def test_retry_gives_up_after_attempts_and_patience():
    flaky = Flaky(9)
    with pytest.raises(TransientError, match="failure 3"):
        flaky.retried(Backoff(attempts=3))
    assert (flaky.calls, len(flaky.pauses)) == (3, 2)
    impatient = Flaky(9)
    with pytest.raises(TransientError):
        impatient.retried(Backoff(first_pause_s=1, patience_s=0.5))
    assert impatient.pauses == []
    with pytest.raises(KeyError):
        retry(lambda: {}["missing"], Backoff(), subject="test", sleep=pytest.fail)


def test_retry_counts_anew_after_progress():
    flaky = Flaky(20)
    assert flaky.retried(Backoff(attempts=2), has_progressed=lambda: True) == "answer"
    assert set(flaky.pauses) == {0.5}


def test_retry_waits_as_long_as_the_server_asks():
    flaky = Flaky(2, wait_s=20.0)
    flaky.retried(Backoff(longest_pause_s=30, jitter=0.5))
    assert flaky.pauses == [20.0, 20.0]


def test_backoff_jitter_stays_within_share():
    backoff = Backoff(first_pause_s=8, jitter=0.5)
    pauses = {backoff.pause_s(1) for _ in range(50)}
    assert len(pauses) > 1
    assert all(4 <= pause <= 8 for pause in pauses)
    assert all(backoff.pause_s(n) > 0 for n in itertools.chain(range(1, 5), [10_000]))
