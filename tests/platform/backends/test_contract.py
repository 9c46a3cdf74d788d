"""The contract of `citeflow.platform.backends.base.Backend`, which every place of runs keeps."""

import dataclasses

import pytest
import yaml
from places import LINES, PLACES, SMALL, eventually, submitted

from citeflow.errors import UnavailableError
from citeflow.platform.backends import cluster_pipelines
from citeflow.platform.backends.base import paths_of


@pytest.fixture(params=PLACES)
def place(request, tmp_path, monkeypatch):
    """One place after the other, with an environment for alice."""
    place = PLACES[request.param](tmp_path, monkeypatch)
    place.backend.ensure_environment("alice", SMALL)
    yield place
    place.close()


@pytest.fixture
def run():
    return submitted()


def started(place, run):
    """Start an attempt, and let it work."""
    place.backend.start(run)
    place.work(run)
    eventually(lambda: place.backend.state(run).phase == "running")
    return run


def texts(lines):
    return sorted(line.removeprefix("12:00:00 ") for line in lines if line.startswith("12:00:00"))


def test_environment_is_made_once_resized_and_removed(place):
    place.backend.ensure_environment("alice", SMALL)
    assert place.backend.environment("alice").state == "ready"
    place.backend.ensure_environment("alice", dataclasses.replace(SMALL, cores=4))
    assert place.backend.environment("alice").state == "ready"
    place.backend.remove_environment("alice")
    place.backend.remove_environment("alice")


def test_environment_is_suspended_and_woken_and_a_repeat_changes_nothing(place):
    for _ in range(2):
        place.backend.suspend("alice")
    expected = "ready" if isinstance(place, PLACES["local"]) else "suspended"
    assert place.backend.environment("alice").state == expected
    for _ in range(2):
        place.backend.wake("alice")
    assert place.backend.environment("alice").state == "ready"
    place.backend.suspend("bob")  # who has none


def test_sizes_grow(place):
    sizes = list(place.backend.sizes().values())
    assert [size.cores for size in sizes] == sorted(size.cores for size in sizes)
    capacity = place.backend.capacity()
    assert capacity is None or capacity.cores >= 1


def test_run_that_was_never_started_is_absent(place, run):
    assert place.backend.state(run).phase == "absent"
    assert list(place.backend.lines(run, 0)) == []
    place.backend.cancel(run)
    assert place.backend.state(run).phase == "absent"


def test_run_starts_works_and_succeeds(place, run):
    started(place, run)
    assert place.backend.state(run).started is not None
    assert place.backend.state(run).ended is None
    place.succeed(run)
    state = place.backend.state(run)
    assert (state.phase, state.detail) == ("succeeded", "")
    assert state.started <= state.ended


def test_run_that_fails_says_why(place, run):
    started(place, run)
    place.fail(run, "the citations name no paper")
    state = place.backend.state(run)
    assert state.phase == "failed"
    assert "the citations name no paper" in state.detail
    assert "\n" not in state.detail


def test_attempt_is_started_once_by_whichever_server(place, run):
    started(place, run)
    for backend in (place.backend, place.again(), place.again()):
        backend.start(run)
    place.succeed(run)
    place.again().start(run)
    assert place.backend.state(run).phase == "succeeded"
    assert place.num_started(run) == 1


def test_new_server_gets_the_same_answers(place, run):
    started(place, run)
    lines = place.backend.lines(run, 0)
    other = place.again()
    assert other.state(run).phase == "running"
    assert list(other.lines(run, 0)) == list(lines)
    place.succeed(run)
    assert other.state(run) == place.backend.state(run)


def test_lines_are_numbered_and_come_once(place, run):
    started(place, run)
    first = list(place.backend.lines(run, 0))
    assert texts(first) == sorted(LINES)
    assert list(place.backend.lines(run, len(first))) == []
    assert list(place.backend.lines(run, 1)) == first[1:]
    assert list(place.backend.lines(run, 0)) == first
    assert list(place.again().lines(run, 2)) == first[2:]


def test_log_outlives_what_has_written_it(place, run):
    started(place, run)
    place.succeed(run)
    place.backend.state(run)
    if hasattr(place, "kube"):
        for pod in place.kube.list("pods", place.namespace(run)):
            place.kube.remove("pods", place.namespace(run), pod["metadata"]["name"])
    assert texts(place.backend.lines(run, 0)) == sorted(LINES)


def test_cancelled_run_stops_and_goes_on_as_another_attempt(place, run):
    started(place, run)
    place.backend.cancel(run)
    place.backend.cancel(run)
    if hasattr(place, "kfp"):
        assert place.run_of(run).state == "CANCELING"
        assert place.backend.state(run).phase == "running"
        place._end(run, "FAILED", 143)  # as the server calls it
    eventually(lambda: place.backend.state(run).phase == "stopped")
    assert place.backend.state(run).ended is not None
    place.again().start(run)
    assert place.backend.state(run).phase == "stopped"
    second = dataclasses.replace(run, attempt=2)
    assert place.backend.state(second).phase == "absent"
    started(place, second)
    assert place.num_started(run) == 2
    assert texts(place.backend.lines(second, 0)) == sorted([*LINES, *LINES])
    place.succeed(second)
    assert place.backend.state(second).phase == "succeeded"


def test_runs_do_not_mix(place, run):
    other = submitted("second")
    started(place, run)
    started(place, other)
    place.succeed(run)
    assert place.backend.state(other).phase == "running"
    assert texts(place.backend.lines(other, 0)) == sorted(LINES)
    place.succeed(other)


def test_delete_takes_all_of_a_run(place, run):
    started(place, run)
    place.succeed(run)
    place.backend.state(run)
    paths = paths_of(place.backend, run)
    paths.logs.mkdir(parents=True)
    assert paths.folder.is_dir()
    for _ in range(2):
        place.backend.delete(run)
        assert not paths.folder.exists()
        assert not paths.logs.exists()


def test_job_is_yaml_that_names_run_and_workers(place, run):
    text = place.backend.job(run)
    assert isinstance(yaml.safe_load(text), dict)
    assert run.name in text
    assert "2" in text


@pytest.mark.parametrize("name", ["jobs", "pipelines"])
def test_start_whose_answer_is_lost_is_not_repeated(name, tmp_path, monkeypatch, run):
    """A server is killed between the call and its record; the next one starts the run again."""
    place = PLACES[name](tmp_path, monkeypatch)
    place.backend.ensure_environment("alice", SMALL)
    place.lose_answer()
    with pytest.raises(UnavailableError):
        place.backend.start(run)
    assert place.num_started(run) == 1
    place.recover()
    place.again().start(run)
    assert place.num_started(run) == 1
    assert place.backend.state(run).phase != "absent"
    place.close()


def test_start_that_may_be_under_way_is_not_repeated_before_it_is_over(tmp_path, monkeypatch, run):
    """A server is killed in the call: another one waits until it can no longer be carried out."""
    place = PLACES["pipelines"](tmp_path, monkeypatch)
    place.backend.ensure_environment("alice", SMALL)
    place.kfp.fail("POST", "/runs", "cut", times=1)
    with pytest.raises(UnavailableError):
        place.backend.start(run)
    with pytest.raises(UnavailableError, match="the run is being submitted: first"):
        place.again().start(run)
    assert place.num_started(run) == 0
    monkeypatch.setattr(cluster_pipelines, "UNDER_WAY_S", 0.0)
    place.again().start(run)
    assert place.num_started(run) == 1
    place.close()
