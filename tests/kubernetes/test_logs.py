"""The logs of all pods of a job: every line once, whatever happens to pods and connections."""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from clusters import NAMESPACE, PYTORCHJOB, eventually
from hypothesis import given
from hypothesis import strategies as st

from citeflow.kubernetes import logs
from citeflow.kubernetes.job_status import ContainerStatus, PodStatus
from citeflow.kubernetes.logs import LogFollower, split_time

JOB = "citeflow-x"
STATES = {
    "running": {"running": {}},
    "waiting": {"waiting": {"reason": "ContainerCreating"}},
    "terminated": {"terminated": {"exitCode": 0}},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(logs, "REOPEN_S", 0.02)
    monkeypatch.setattr(logs, "LAST_READ_S", 10.0)


class Pods:
    """The pods of a job as a test sets them; `poll` is what the watcher does."""

    def __init__(self, kube, follower, client):
        self.kube = kube
        self.follower = follower
        self.client = client

    def set(self, rank=0, *, phase="Running", state="running", restarts=0, lines=()):
        name = f"{JOB}-worker-{rank}"
        status = {"name": "pytorch", "restartCount": restarts, "state": STATES[state]}
        status |= {"image": "i", "imageID": "", "ready": state == "running"}
        labels = {PYTORCHJOB.pod_label: JOB}
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
        spec = {"containers": [{"name": "pytorch", "image": "i"}], "nodeName": "node-0"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        old = self.kube.get("pods", NAMESPACE, name)
        if old:  # not merged: the states of a container exclude each other
            self.kube.patch("pods", NAMESPACE, name, {"status": {"containerStatuses": None}})
        self.kube.put({**pod, "status": {"phase": phase, "containerStatuses": [status]}})
        self.write(*lines, rank=rank)

    def write(self, *lines, rank=0):
        for line in lines:
            self.kube.write_log(NAMESPACE, f"{JOB}-worker-{rank}", line)

    def remove(self):
        self.kube.remove("pods", NAMESPACE, f"{JOB}-worker-0")

    def poll(self):
        self.follower.update(self.client.pods(""))

    def num_reads(self):
        return sum(request.resource == "pods/log" for request in self.kube.requests)


@pytest.fixture
def follower(client, kube):
    follower = LogFollower(client, PYTORCHJOB)
    yield follower
    follower._ended.set()

    def has_ended():
        kube.cut_streams()
        return not any(thread.is_alive() for thread in follower._threads.values())

    eventually(has_ended)


@pytest.fixture
def pods(kube, follower, client):
    return Pods(kube, follower, client)


@pytest.fixture
def printed(capsys):
    """Return the lines on stderr so far."""
    lines = []

    def read():
        lines.extend(capsys.readouterr().err.splitlines())
        return lines

    return read


def numbers(first, last):
    return [f"line {n}" for n in range(first, last)]


def shown(first, last, rank=0):
    return [f"worker-{rank} | {line}" for line in numbers(first, last)]


def test_lines_come_while_they_are_written(pods, follower, printed):
    pods.set(phase="Pending", state="waiting")
    pods.poll()
    time.sleep(0.1)
    assert pods.num_reads() == 0
    pods.set()
    pods.poll()
    texts = ["I am", "", "  indented\twith | bars", *numbers(0, 100)]
    for number, text in enumerate(texts):
        pods.write(text)
        if number < 5:
            eventually(lambda n=number: len(printed()) == n + 1)
    eventually(lambda: printed() == [f"worker-0 | {text}" for text in texts])
    assert pods.num_reads() == 1
    assert follower.last_lines(f"{JOB}-worker-0") == texts[-logs.KEPT_LINES :]


def test_restarted_containers_are_followed(pods, printed):
    pods.set()
    pods.poll()
    for restarts in range(4):
        first = 10 * restarts
        pods.write(*numbers(first, first + 10))
        eventually(lambda n=first: printed() == shown(0, n + 10))
        if restarts == 2:
            pods.set(state="waiting", restarts=restarts)
            pods.poll()
            time.sleep(0.1)
        pods.set(restarts=restarts + 1)
        pods.poll()
    assert pods.num_reads() >= 4


@pytest.mark.parametrize("abruptly", [True, False])
def test_cut_connections_lose_and_repeat_no_line(pods, kube, printed, abruptly):
    for rank in range(3):
        pods.set(rank)
    pods.poll()
    for n in range(100):
        for rank in range(3):
            pods.write(f"line {n}", rank=rank)
        if n % 25 == 10:
            kube.cut_streams(abruptly=abruptly)
        if n % 50 == 10:
            time.sleep(0.1)  # so that some are connected again
    eventually(lambda: len(printed()) >= 300)
    time.sleep(0.1)
    for rank in range(3):
        own = [line for line in printed() if line.startswith(f"worker-{rank}")]
        assert own == shown(0, 100, rank)
    queries = [request.query for request in kube.requests if request.resource == "pods/log"]
    assert len(queries) > 6
    assert queries[0] == {"container": "pytorch", "follow": "true", "timestamps": "true"}
    age = datetime.now(UTC) - datetime.fromisoformat(queries[-1]["sinceTime"])
    assert timedelta(0) <= age < timedelta(seconds=30)


@pytest.mark.parametrize("status", [404, 500])
def test_logs_that_are_refused_are_read_again(pods, kube, printed, status):
    fault = kube.fail(3, resource="pods/log", status=status)
    pods.set(lines=["line 0"])
    pods.poll()
    eventually(lambda: printed() == shown(0, 1))
    assert fault.fired == 3


def test_deleted_pods_are_no_longer_read(pods, printed, follower):
    pods.set(lines=["line 0"])
    pods.poll()
    eventually(lambda: printed() == shown(0, 1))
    pods.remove()
    pods.poll()
    time.sleep(0.1)
    reads = pods.num_reads()
    time.sleep(0.1)
    assert pods.num_reads() == reads
    follower.finish()
    assert not any(thread.is_alive() for thread in follower._threads.values())


def test_replaced_pods_are_followed(pods, printed):
    for first in range(0, 15, 5):
        pods.set(lines=numbers(first, first + 5))
        pods.set(phase="Failed", state="terminated")
        pods.poll()
        eventually(lambda n=first: printed() == shown(0, n + 5))
        pods.remove()
    time.sleep(0.1)
    assert printed() == shown(0, 15)


def test_finish_reads_the_last_lines(pods, follower, printed, monkeypatch):
    pods.set(lines=["line 0"])
    pods.poll()
    eventually(lambda: printed() == shown(0, 1))
    monkeypatch.setattr(logs, "REOPEN_S", 1000.0)
    pods.kube.cut_streams(abruptly=False)
    pods.write("line 1", "line 2")
    pods.set(phase="Succeeded", state="terminated")
    time.sleep(0.05)
    follower.finish()
    assert printed() == shown(0, 3)


def test_finish_has_a_limit(pods, follower, monkeypatch):
    monkeypatch.setattr(logs, "LAST_READ_S", 0.2)
    pods.set()
    pods.poll()
    eventually(lambda: pods.num_reads())
    started = time.monotonic()
    follower.finish()
    assert 0.1 < time.monotonic() - started < 2


class Scripted:
    """A client whose log streams are given, one after the other."""

    def __init__(self, *streams):
        self.streams = list(streams)
        self.since = []

    def follow_log(self, pod, container, *, since):
        self.since.append(since)
        yield from self.streams.pop(0)


def read(*streams):
    """Follow a pod through streams; return the times that the client was asked for."""
    running = ContainerStatus(
        name="c", restarts=0, is_running=True, waiting="", end=None, last_end=None
    )
    pod = PodStatus(
        name=f"{JOB}-worker-0",
        uid="a",
        labels={PYTORCHJOB.pod_label: JOB},
        created=datetime.now(UTC),
        phase="Running",
        container_names=("c",),
        containers=(running,),
        unschedulable="",
    )
    client = Scripted(*streams)
    follower = LogFollower(client, PYTORCHJOB)
    follower.update([pod])
    eventually(lambda: len(client.streams) <= 1)
    follower.finish()
    assert client.streams == []
    return client.since


def test_times_are_compared_not_their_text(printed):
    first = ["2026-01-01T12:00:00.5Z one", "2026-01-01T12:00:00.500000001Z two"]
    second = [
        "2026-01-01T12:00:00.500Z one",
        "2026-01-01T14:00:00.500000001+02:00 two",
        "2026-01-01T06:30:00.91-05:30 three",
        "2026-01-01T12:00:10Z four",
    ]
    third = ["2026-01-01T12:00:10.0Z four", "2026-01-01T12:00:10.000000001Z five"]
    since = read(first, second, third)
    assert printed() == [f"worker-0 | {text}" for text in ("one", "two", "three", "four", "five")]
    assert since == [None, "2026-01-01T12:00:00Z", "2026-01-01T12:00:10Z"]


def test_lines_of_one_moment_and_without_time_are_printed(printed):
    at = "2026-01-01T12:00:00.123456789Z"
    since = read(["no log yet", f"{at} one", f"{at} two", f"{at} two"], [f"{at} one"], [])
    assert printed() == [f"worker-0 | {text}" for text in ("no log yet", "one", "two", "two")]
    assert since == [None, "2026-01-01T12:00:00Z", "2026-01-01T12:00:00Z"]


@pytest.mark.parametrize(
    ("line", "when", "text"),
    [
        ("1970-01-01T00:00:01.5Z x", (1, 500_000_000), "x"),
        ("1970-01-01T00:00:01.000000005Z  x y", (1, 5), " x y"),
        ("1969-12-31T18:30:01-05:30 x", (1, 0), "x"),
        ("1970-01-01T00:00:01Z", (1, 0), ""),
        ("", None, ""),
        ("12:00:00 x", None, "12:00:00 x"),
        (" 1970-01-01T00:00:01Z x", None, " 1970-01-01T00:00:01Z x"),
    ],
)
def test_split_time_takes_the_time_off(line, when, text):
    assert split_time(line) == (when, text)


MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moment=MOMENTS, offset=OFFSETS, text=st.text(st.characters(exclude_characters="\n\r")))
def test_split_time_is_the_same_in_all_zones(moment, offset, text):
    moment = moment.replace(tzinfo=UTC)
    seconds = int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1)
    line = f"{moment.astimezone(offset).isoformat()} {text}"
    assert split_time(line) == ((seconds, 1000 * moment.microsecond), text)
