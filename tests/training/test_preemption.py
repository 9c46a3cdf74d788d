"""A request to stop waits while steps are taken, and ends everything else at once."""

import os
import signal

import pytest

from citeflow.errors import StoppedError
from citeflow.training.preemption import StopRequests


@pytest.fixture
def stops():
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield StopRequests()
    for number, handler in old.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_steps_are_taken_waits_until_it_is_asked_for(stops, number):
    with stops.waiting():
        assert not stops()
        os.kill(os.getpid(), number)
        assert stops()


def test_a_signal_outside_of_steps_ends_the_work_and_a_second_one_does_not_disturb_the_cleaning(
    stops,
):
    with pytest.raises(SystemExit) as caught:
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == StoppedError.exit_code == 143
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_that_waited_ends_the_next_work_that_may_be_ended(stops):
    with stops.waiting():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit), stops.at_once():
            pytest.fail("it went on")


def test_a_signal_ends_work_within_steps_that_may_be_ended_and_waits_after_it(stops):
    with stops.waiting():
        with pytest.raises(SystemExit), stops.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stops()
