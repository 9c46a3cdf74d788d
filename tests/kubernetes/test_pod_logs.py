"""How the logs of all pods of a job become one: every line once, whatever happens to pods and connections."""

import contextlib
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clusters import NAMESPACE, connect
from hypothesis import given
from hypothesis import strategies as st
from kubernetes import client as k8s

from citeflow.kubernetes import logs
from citeflow.kubernetes.logs import LogFollower, split_time

JOB = "citeflow-x"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A log that ended is opened again in a moment."""
    monkeypatch.setattr(logs, "AGAIN_S", 0.02)
    monkeypatch.setattr(logs, "LAST_READ_S", 10.0)


class Pods:
    """The pods of a job, as a test has them be; `see` is what the launcher does every few seconds."""

    def __init__(self, kube, follower, api):
        self.kube, self.follower, self.api = kube, follower, api

    def set(self, name, *, phase="Running", state="running", restarts=0):
        states = {
            "running": {},
            "waiting": {"reason": "ContainerCreating"},
            "terminated": {"exitCode": 0},
        }
        status = {"name": "pytorch", "restartCount": restarts, "state": {state: states[state]}}
        status |= {"image": "i", "imageID": "", "ready": state == "running"}
        head = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE},
        }
        spec = {"containers": [{"name": "pytorch", "image": "i"}], "nodeName": "node-0"}
        old = self.kube.get("pods", NAMESPACE, name) or {**head, "spec": spec}
        self.kube.put({**old, "status": {"phase": phase, "containerStatuses": [status]}})

    def write(self, name, *lines):
        for line in lines:
            self.kube.write_log(NAMESPACE, name, line)

    def see(self):
        self.follower.see(self.api.pods(""))

    def asked(self):
        return sum(request.resource == "pods/log" for request in self.kube.requests)


@pytest.fixture
def follower(api, kube):
    """A follower whose threads end with the test."""
    follower = LogFollower(api, JOB)
    yield follower
    follower._ended.set()
    eventually(
        lambda: (
            kube.cut_streams()
            or not any(thread.is_alive() for thread in follower._threads.values())
        )
    )


@pytest.fixture
def pods(kube, follower, api):
    """The pods of a job."""
    return Pods(kube, follower, api)


@pytest.fixture
def told(capsys):
    """The lines on stderr so far."""
    lines = []

    def read():
        lines.extend(capsys.readouterr().err.splitlines())
        return lines

    return read


def eventually(condition):
    until = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return found


def numbered(rank, first, last):
    return [f"worker-{rank} | line {n}" for n in range(first, last)]


def test_every_line_stands_behind_the_name_of_its_pod(pods, told):
    for rank in range(3):
        pods.set(f"{JOB}-worker-{rank}")
        pods.write(f"{JOB}-worker-{rank}", f"I am {rank}", "", "  indented\twith | bars")
    pods.see()
    eventually(lambda: len(told()) == 9)
    for rank in range(3):
        own = [line for line in told() if line.startswith(f"worker-{rank}")]
        assert own == [
            f"worker-{rank} | {text}" for text in (f"I am {rank}", "", "  indented\twith | bars")
        ]


def test_lines_come_while_they_are_written(pods, told):
    pods.set(f"{JOB}-worker-0")
    pods.see()
    for n in range(5):
        pods.write(f"{JOB}-worker-0", f"line {n}")
        eventually(lambda n=n: told() == numbered(0, 0, n + 1))
    assert pods.asked() == 1


def test_a_pod_that_waits_is_not_asked_until_it_runs(pods, told):
    pods.set(f"{JOB}-worker-0", phase="Pending", state="waiting")
    for _ in range(3):
        pods.see()
    time.sleep(0.1)
    assert pods.asked() == 0
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "begins")
    pods.see()
    eventually(lambda: told() == ["worker-0 | begins"])


def test_a_pod_that_ended_before_it_was_seen_is_read(pods, follower, told):
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "line 0", "line 1")
    pods.set(f"{JOB}-worker-0", phase="Failed", state="terminated")
    pods.see()
    follower.finish()
    assert told() == numbered(0, 0, 2)


def test_a_container_that_starts_again_is_followed_on(pods, told):
    name = f"{JOB}-worker-0"
    pods.set(name)
    pods.see()
    for restarts in range(4):
        pods.write(name, *(f"line {n}" for n in range(10 * restarts, 10 * restarts + 10)))
        eventually(lambda r=restarts: told() == numbered(0, 0, 10 * r + 10))
        pods.set(name, state="running", restarts=restarts + 1)
        pods.see()
    assert pods.asked() >= 4


def test_a_container_that_is_between_two_starts_is_waited_for(pods, told):
    name = f"{JOB}-worker-0"
    pods.set(name)
    pods.see()
    pods.write(name, "line 0")
    eventually(lambda: told() == numbered(0, 0, 1))
    pods.set(name, state="waiting")
    pods.see()
    eventually(lambda: pods.asked() > 3)
    pods.set(name, restarts=1)
    pods.write(name, "line 1")
    eventually(lambda: told() == numbered(0, 0, 2))


@pytest.mark.parametrize("abruptly", [True, False])
def test_no_line_is_lost_and_none_told_twice_when_connections_are_cut(pods, kube, told, abruptly):
    names = [f"{JOB}-worker-{rank}" for rank in range(3)]
    for name in names:
        pods.set(name)
    pods.see()
    for n in range(300):
        for name in names:
            pods.write(name, f"line {n}")
        if n % 25 == 10:
            kube.cut_streams(abruptly=abruptly)
        if n % 60 == 10:
            time.sleep(0.1)  # so that some are connected again
    eventually(lambda: len(told()) >= 900)
    time.sleep(0.1)
    for rank in range(3):
        assert [line for line in told() if line.startswith(f"worker-{rank}")] == numbered(
            rank, 0, 300
        )
    assert pods.asked() > 10


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_a_log_that_is_not_to_be_had_now_is_asked_for_again(pods, kube, told, status):
    fault = kube.fail(3, resource="pods/log", status=status)
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "line 0")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 1))
    assert fault.fired == 3


def test_an_outage_loses_no_line(pods, kube, told):
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "line 0")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 1))
    kube.outage()
    pods.write(f"{JOB}-worker-0", "line 1", "line 2")
    eventually(lambda: len(kube.refused) > 2)
    kube.recover()
    eventually(lambda: told() == numbered(0, 0, 3))


def test_a_log_is_asked_for_from_where_it_was_read_to(pods, kube, told):
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "line 0")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 1))
    kube.cut_streams()
    eventually(lambda: pods.asked() > 1)
    first, second = [request.query for request in kube.requests if request.resource == "pods/log"][
        :2
    ]
    assert "sinceTime" not in first
    age = datetime.now(UTC) - datetime.fromisoformat(second["sinceTime"])
    assert timedelta(0) <= age < timedelta(seconds=20)
    assert (first["container"], first["timestamps"], first["follow"]) == ("pytorch", "true", "true")


def test_a_pod_that_is_gone_is_no_longer_asked_for(pods, kube, told, follower):
    pods.set(f"{JOB}-worker-0")
    pods.write(f"{JOB}-worker-0", "line 0")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 1))
    kube.remove("pods", NAMESPACE, f"{JOB}-worker-0")
    pods.see()
    time.sleep(0.1)
    asked = pods.asked()
    time.sleep(0.1)
    assert pods.asked() == asked
    began = time.monotonic()
    follower.finish()
    assert time.monotonic() - began < 1
    assert not any(thread.is_alive() for thread in follower._threads.values())


@pytest.mark.parametrize("is_seen_first", [True, False])
def test_a_pod_that_comes_anew_is_told_once(pods, kube, told, is_seen_first):
    name = f"{JOB}-worker-0"
    for first in range(0, 20, 5):
        pods.set(name)
        pods.write(name, *(f"line {n}" for n in range(first, first + 5)))
        if not is_seen_first:
            time.sleep(0.1)
        pods.see()
        eventually(lambda n=first: told() == numbered(0, 0, n + 5))
        kube.remove("pods", NAMESPACE, name)
    time.sleep(0.1)
    assert told() == numbered(0, 0, 20)


def test_a_pod_that_comes_anew_after_one_that_failed_is_followed(pods, kube, told):
    name = f"{JOB}-worker-0"
    pods.set(name)
    pods.write(name, "line 0")
    pods.set(name, phase="Failed", state="terminated")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 1))
    asked = pods.asked()
    time.sleep(0.1)
    assert pods.asked() == asked
    kube.remove("pods", NAMESPACE, name)
    pods.see()
    pods.set(name, phase="Pending", state="waiting")
    pods.see()
    pods.set(name)
    pods.write(name, "line 1")
    pods.see()
    eventually(lambda: told() == numbered(0, 0, 2))


def test_the_end_waits_for_the_last_lines(pods, follower, told, monkeypatch):
    name = f"{JOB}-worker-0"
    pods.set(name)
    pods.see()
    pods.write(name, "line 0")
    eventually(lambda: told() == numbered(0, 0, 1))
    monkeypatch.setattr(logs, "AGAIN_S", 1000.0)
    pods.kube.cut_streams(abruptly=False)
    pods.write(name, "line 1", "line 2")
    pods.set(name, phase="Succeeded", state="terminated")
    time.sleep(0.05)
    follower.finish()
    assert told() == numbered(0, 0, 3)


def test_the_end_is_not_waited_for_without_end(pods, follower, monkeypatch):
    monkeypatch.setattr(logs, "LAST_READ_S", 0.2)
    pods.set(f"{JOB}-worker-0")
    pods.see()
    eventually(lambda: pods.asked())
    began = time.monotonic()
    follower.finish()
    assert 0.1 < time.monotonic() - began < 2


def test_the_last_lines_of_a_pod_are_kept(pods, follower, told):
    for rank in range(2):
        pods.set(f"{JOB}-worker-{rank}")
    pods.write(f"{JOB}-worker-1", *(f"line {n}" for n in range(100)))
    pods.see()
    eventually(lambda: len(told()) == 100)
    assert follower.last_lines(f"{JOB}-worker-0") == []
    assert follower.last_lines(f"{JOB}-worker-1") == [
        f"line {n}" for n in range(100 - logs.KEPT_LINES, 100)
    ]


# Times


class Scripted:
    """An API whose log streams are given; the first pod of all has one after the other."""

    def __init__(self, *streams):
        self.streams, self.since = list(streams), []

    def log_lines(self, pod, container, *, since):
        self.since.append(since)
        yield from self.streams.pop(0)


def pod(uid, name=f"{JOB}-worker-0", phase="Running"):
    state = k8s.V1ContainerState(running=k8s.V1ContainerStateRunning())
    status = k8s.V1ContainerStatus(
        name="c", image="i", image_id="", ready=True, restart_count=0, state=state
    )
    return k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(name=name, uid=uid),
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="c")]),
        status=k8s.V1PodStatus(phase=phase, container_statuses=[status]),
    )


def read(*streams):
    """Follow a pod through streams that follow each other; returns what the API was asked for."""
    api = Scripted(*streams)
    follower = LogFollower(api, JOB)
    follower.see([pod("a")])
    eventually(lambda: len(api.streams) <= 1)
    follower.finish()
    assert api.streams == []
    return api.since


def test_times_are_compared_and_not_their_texts(told):
    first = [
        "2026-01-01T12:00:00.5Z one",
        "2026-01-01T12:00:00.500000001Z two",
        "2026-01-01T12:00:00.9Z three",
    ]
    second = [
        "2026-01-01T12:00:00.500Z one",
        "2026-01-01T14:00:00.500000001+02:00 two",
        "2026-01-01T06:30:00.900000-05:30 three",
        "2026-01-01T06:30:00.91-05:30 four",
        "2026-01-01T12:00:10Z five",
    ]
    third = ["2026-01-01T12:00:10.0Z five", "2026-01-01T12:00:10.000000001Z six"]
    asked = read(first, second, third)
    assert told() == [
        f"worker-0 | {text}" for text in ("one", "two", "three", "four", "five", "six")
    ]
    assert asked == [None, "2026-01-01T12:00:00Z", "2026-01-01T12:00:10Z"]


def test_lines_of_the_same_moment_are_all_told(told):
    line = "2026-01-01T12:00:00.123456789Z"
    read(
        [f"{line} one", f"{line} two", f"{line} two"],
        [f"{line} one", f"{line} two", f"{line} two"],
        [],
    )
    assert told() == ["worker-0 | one", "worker-0 | two", "worker-0 | two"]


def test_a_line_without_a_time_is_told_as_it_is(told):
    asked = read(["unable to retrieve container logs", "2026-01-01T12:00:00Z one", "again"], [])
    assert told() == [
        f"worker-0 | {text}" for text in ("unable to retrieve container logs", "one", "again")
    ]
    assert asked == [None, "2026-01-01T12:00:00Z"]


@pytest.mark.parametrize(
    ("line", "when", "text"),
    [
        ("1970-01-01T00:00:01Z x", (1, 0), "x"),
        ("1970-01-01T00:00:01.5Z x", (1, 500_000_000), "x"),
        ("1970-01-01T00:00:01.000000005Z  x y", (1, 5), " x y"),
        ("1970-01-01T01:00:01.05+01:00 x", (1, 50_000_000), "x"),
        ("1969-12-31T18:30:01-05:30 x", (1, 0), "x"),
        ("1970-01-01T00:00:01Z ", (1, 0), ""),
        ("1970-01-01T00:00:01Z", (1, 0), ""),
        ("", None, ""),
        ("12:00:00 x", None, "12:00:00 x"),
        ("1970-01-01 00:00:01 x", None, "1970-01-01 00:00:01 x"),
        (" 1970-01-01T00:00:01Z x", None, " 1970-01-01T00:00:01Z x"),
    ],
)
def test_the_time_is_taken_off_a_line(line, when, text):
    assert split_time(line) == (when, text)


MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1))
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(moment=MOMENTS, offset=OFFSETS, text=st.text(st.characters(exclude_characters="\n\r")))
def test_the_time_of_a_line_is_the_same_wherever_it_was_written(moment, offset, text):
    moment = moment.replace(tzinfo=UTC)
    wanted = (
        int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() // 1),
        1000 * moment.microsecond,
    )
    assert split_time(f"{moment.astimezone(offset).isoformat()} {text}") == (wanted, text)


# Bytes


@contextlib.contextmanager
def served(*chunks):
    """A server that answers every request with the same bytes, one piece after the other."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response_only(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (*chunks, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        api = connect(f"http://127.0.0.1:{server.server_address[1]}")
        yield api
        api.client.close()
        api.client.rest_client.pool_manager.clear()
        server.shutdown()
        thread.join(5)


def lines_of(*chunks):
    with served(*chunks) as api:
        return list(api.log_lines("p", "c", since=None))


def test_bytes_that_are_no_text_are_told_as_far_as_they_are():
    assert lines_of(b"a \xff\xfe b\n", b"caf\xc3\xa9\n") == ["a \ufffd\ufffd b", "caf\u00e9"]


def test_lines_do_not_depend_on_the_pieces_that_they_come_in():
    text = "2026-01-01T12:00:00Z gr\u00fc\u00dfe \u6c34\r\n\nthird\rpart\x00\u2028end\n"
    wanted = ["2026-01-01T12:00:00Z gr\u00fc\u00dfe \u6c34\r", "", "third\rpart\x00\u2028end"]
    for size in (1, 2, 3, 7, 1000):
        pieces = [text.encode()[at : at + size] for at in range(0, len(text.encode()), size)]
        assert lines_of(*pieces) == wanted


def test_a_line_that_was_cut_is_not_told_in_part():
    assert lines_of(b"one\ntw") == ["one"]
