"""What the driver starts on each place of Ray; tests/faults/test_killed_ray.py trains with it."""

import os
import types
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")

from citeflow.kubernetes import pod_template
from citeflow.kubernetes.identity import JobIdentity
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.training import ray_driver
from citeflow.training.ray_launch import driver_parser

ARGUMENTS = driver_parser().parse_args(
    ["--workers=3", "--processes=2", "--restarts=10", "/mnt/citeflow/runs/a/job.json"]
)


def split(words):
    """Return the options of torchrun, and what is behind them."""
    options = dict(word.split("=", 1) for word in words if word.startswith("--"))
    return options, [word for word in words if not word.startswith("--")]


@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_command_is_that_of_other_jobs(rank):
    command = ray_driver.torchrun_command(ARGUMENTS, rank, "10.0.0.7", "10.0.0.5:4242", "a-run")
    options, words = split(command)
    identity = JobIdentity(
        namespace="n", run_id="r", run_name="a", job_file="/mnt/citeflow/runs/a/job.json"
    )
    others, (_, *other_words) = split(
        pod_template.torchrun(JobSpec(workers=3, gpus=2, restarts=10), identity, "host")
    )
    assert words == other_words
    assert set(options) == set(others)
    own = {"--rdzv-endpoint", "--rdzv-id", "--local-addr", "--rdzv-conf"}
    assert {options[name] == others[name] for name in set(options) - own} == {True}
    assert options["--rdzv-conf"] == f"is_host={rank == 0},{others['--rdzv-conf']}"
    assert options["--local-addr"] == "10.0.0.7"


def test_torchrun_environment_keeps_tunables_from_ray(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.arena_max=3")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    given = ray_driver.torchrun_environment()
    assert given["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=3"
    assert given["PYTHONSAFEPATH"] == "1"
    assert not {"GLIBC_TUNABLES", "PYTHONSAFEPATH"} & set(os.environ)
    assert "arena_max=1" in ray_driver.torchrun_environment()["GLIBC_TUNABLES"]


def test_start_tries_again_where_a_busy_machine_was_too_slow(monkeypatch, capfd, tmp_path):
    calls = []

    def init(**options):
        calls.append(options)
        if len(calls) < 3:
            raise Exception("The current node timed out during startup.\nIt did.")

    monkeypatch.setattr(ray_driver.ray, "init", init)
    here = driver_parser().parse_args(
        ["--workers=3", "--restarts=1", f"--here={tmp_path}", "job.json"]
    )
    ray_driver.start(here)
    assert [each["address"] for each in calls] == ["local"] * 3
    assert calls[0]["num_cpus"] == 3
    assert "attempt=2 why=The current node timed out during startup.\n" in capfd.readouterr().err
    calls.clear()
    monkeypatch.setattr(ray_driver, "START_TRIES", 2)
    with pytest.raises(ray_driver.UnavailableError, match="Ray does not start, in tries: 2"):
        ray_driver.start(here)


def test_start_says_that_there_is_no_ray_at_an_address(monkeypatch):
    def init(**options):
        raise ConnectionError("Could not find any running Ray instance.\nMore.")

    monkeypatch.setattr(ray_driver.ray, "init", init)
    with pytest.raises(ray_driver.UnavailableError, match="no Ray at auto: Could not find any"):
        ray_driver.start(ARGUMENTS)


def test_actor_yields_the_lines_of_torchrun_and_its_exit_code(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-secret")
    code = "import os; print(os.getenv('RAY_AUTH_TOKEN'), os.getenv('A')); print('b'); exit(7)"
    found = list(ray_driver.Torchrun().run(["-c", code], {"A": "1"}))
    assert found == ["None 1", "b", 7]


def test_actor_that_has_started_nothing_stops_nothing():
    ray_driver.Torchrun().stop()


class Streams:
    """Stands in for Ray: what each stream yields is given; an exception is a lost actor."""

    def __init__(self, monkeypatch, *items):
        self.streams = {iter(each): rank for rank, each in enumerate(items)}
        self.stopped = []
        monkeypatch.setattr(ray_driver, "POLL_S", 0.0)
        monkeypatch.setattr(ray_driver, "GRACE_S", 0.2)
        monkeypatch.setattr(ray_driver.ray, "wait", lambda known, **_: (known[:1], known[1:]))
        monkeypatch.setattr(ray_driver.ray, "get", self.get)

    def get(self, item):
        if isinstance(item, Exception):
            raise item
        return item

    def actor(self, rank):
        stop = types.SimpleNamespace(remote=lambda: self.stopped.append(rank))
        return types.SimpleNamespace(stop=stop)

    def follow(self, stop=()):
        actors = [self.actor(rank) for rank in self.streams.values()]
        return ray_driver.follow(actors, dict(self.streams), list(stop))


def test_follow_prints_all_lines_behind_their_place(monkeypatch, capfd):
    streams = Streams(monkeypatch, ["a", "", 0], ["b | c", 0])
    end = streams.follow()
    assert (end.exit_code, end.is_lost, streams.stopped) == (0, False, [])
    assert capfd.readouterr().err.splitlines() == [
        "worker-0 | a",
        "worker-0 | ",
        "worker-1 | b | c",
    ]


def test_follow_ends_all_where_one_torchrun_fails(monkeypatch):
    streams = Streams(monkeypatch, ["a", 1], ["b", 143])
    end = streams.follow()
    assert (end.exit_code, end.is_lost) == (1, False)
    assert streams.stopped == [0, 1]


def test_follow_tells_a_lost_place_from_a_failure(monkeypatch):
    lost = ray_driver.RayError("The actor died.\nIts node is gone.")
    streams = Streams(monkeypatch, [1], ["b", lost])
    assert streams.follow().is_lost
    assert streams.stopped == [0, 1]


def test_follow_takes_a_torchrun_that_was_asked_to_end_by_its_node_for_lost(monkeypatch):
    assert Streams(monkeypatch, [143], [1]).follow().is_lost
    assert not Streams(monkeypatch, [143], [143]).follow(stop=[15]).is_lost


def test_follow_does_not_wait_for_ever_for_a_place_that_is_silent(monkeypatch):
    def silent():
        while True:
            yield "..."

    end = Streams(monkeypatch, silent(), [1]).follow(stop=[15])
    assert end.is_lost


def test_find_places_names_a_node_that_does_not_see_the_run(monkeypatch, tmp_path):
    place = ray_driver.Place(address="10.0.0.7", port=1, sees_job=False)
    actor = types.SimpleNamespace(place=types.SimpleNamespace(remote=lambda job: place))
    monkeypatch.setattr(ray_driver.ray, "wait", lambda known, **_: (known, []))
    monkeypatch.setattr(ray_driver.ray, "get", lambda known: known)
    with pytest.raises(ray_driver.ConfigError, match="a node of Ray does not see"):
        ray_driver.find_places([actor], Path("/elsewhere/job.json"), [])


def test_find_places_ends_where_ray_has_none(monkeypatch):
    actor = types.SimpleNamespace(place=types.SimpleNamespace(remote=lambda job: "waiting"))
    monkeypatch.setattr(ray_driver, "JOIN_TIMEOUT_S", -1)
    monkeypatch.setattr(ray_driver.ray, "wait", lambda known, **_: ([], known))
    with pytest.raises(ray_driver.UnavailableError, match="not enough places for workers: 0 of 1"):
        ray_driver.find_places([actor], Path("job.json"), [])
    assert ray_driver.find_places([actor], Path("job.json"), [15]) == []
