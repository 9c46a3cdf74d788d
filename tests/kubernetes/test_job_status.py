"""Jobs and pods as real servers describe them (shared/recordings), and what is read from them."""

import copy
import datetime
import json
import math
import re

import pytest
from clusters import PYTORCHJOB, RAYJOB, SHARED, TRAINJOB, identity
from fakes.operator import RECORDED
from kubernetes import client as k8s

from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import PodStatus, first_failure, summarize
from citeflow.kubernetes.launchers import LAUNCHERS


def recorded(name):
    path = SHARED / "recordings" / name
    if not path.is_file():
        pytest.skip("the recordings of real servers are not here")
    return [entry.get("object", entry) for entry in json.loads(path.read_text())]


def read(*objects):
    with k8s.ApiClient() as api:
        return [PodStatus.read(api._ApiClient__deserialize(pod, "V1Pod")) for pod in objects]


@pytest.fixture(scope="module")
def pods():
    """The recorded pods of workers."""
    return read(*recorded("worker-pods.json"))


PULL = "failed to pull and unpack image"
TROUBLES = {
    "creating": "ContainerCreating",
    "unschedulable": "0/1 nodes are available: 1 Insufficient cpu.",
    "err_image_pull": f'ErrImagePull: {PULL} "docker.io/nosuch/image:1": failed to resolve image',
    "image_pull_back_off": f'ImagePullBackOff: {PULL} "docker.io/nosuch/image:1": failed to',
    "oom_killed": "OOMKilled",
    "oom_back_off": "OOMKilled, CrashLoopBackOff",
    "oom_running": "OOMKilled",
    "lost": "ContainerStatusUnknown",
    "running": "",
}


@pytest.mark.parametrize("state", RECORDED)
def test_trouble_is_said_in_the_words_of_the_cluster(state):
    (pod,) = read(RECORDED[state])
    assert pod.trouble.startswith(TROUBLES[state])
    assert "preemption" not in pod.trouble
    assert bool(pod.trouble) == bool(TROUBLES[state])
    assert pod.has_node == (state != "unschedulable")
    assert pod.is_unrecoverable == ("image" in state)


def test_trouble_of_an_evicted_pod_and_of_one_that_a_queue_holds():
    evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    bodies = [{**RECORDED["lost"], "status": evicted}, RECORDED["unschedulable"]]
    bodies[1] = {**bodies[1], "status": {"phase": "Pending", "conditions": [gated]}}
    pods = read(*bodies)
    assert [pod.trouble for pod in pods] == ["Evicted: The node was low on memory.", ""]
    assert summarize(pods) == "1 failed, 1 pending, Evicted: The node was low on memory."


def test_pod_of_which_the_kubelet_says_nothing_yet_is_read():
    metadata = k8s.V1ObjectMeta(name="a", uid="u")
    container = k8s.V1Container(name="c")
    waiting = k8s.V1ContainerState(waiting=k8s.V1ContainerStateWaiting())
    states = [
        k8s.V1ContainerStatus(
            name="c", image="i", image_id="", ready=False, restart_count=0, state=state
        )
        for state in (None, waiting)
    ]
    status = k8s.V1PodStatus(container_statuses=states)
    spec = k8s.V1PodSpec(containers=[container])
    pod = PodStatus.read(k8s.V1Pod(metadata=metadata, spec=spec, status=status))
    assert summarize([pod]) == "1 unknown"


def test_recorded_pods_are_read(pods):
    assert summarize([]) == "no pods yet"
    for pod in pods:
        (launcher,) = [each for each in LAUNCHERS.values() if each.pod_label in pod.labels]
        assert launcher.container in pod.container_names
        assert re.fullmatch(r"worker-\d|node-0-\d", launcher.replica(pod))
        assert pod.has_started or pod.phase not in ("Running", "Succeeded")
        assert pod.phase != "Pending" or not pod.has_started
        assert pod.has_ended == (pod.phase in ("Succeeded", "Failed"))
    reasons = {str(each.end) for pod in pods for each in pod.containers if each.end}
    assert {"137 (OOMKilled)", "137 (ContainerStatusUnknown)", "0 (Completed)"} <= reasons


def test_first_failure_is_the_earliest(pods):
    failure = first_failure(pods)
    ends = [
        end
        for pod in pods
        for each in pod.containers
        for end in (each.end, each.last_end)
        if end and end.exit_code and end.finished
    ]
    assert failure[1].finished == min(end.finished for end in ends)
    assert first_failure([]) is None


def test_recorded_jobs_are_read():
    found = [PYTORCHJOB.status(job) for job in recorded("pytorchjobs.json")]
    assert {job.end.succeeded if job.end else None for job in found} == {True, False, None}
    failed = [job.end.reason for job in found if job.end and not job.end.succeeded]
    assert all("failed" in reason for reason in failed)
    assert all(job.deadline_s > 0 and job.run_id and job.spec_sha256 for job in found)
    assert all(job.started >= job.created for job in found)
    for job in map(TRAINJOB.status, recorded("trainjobs.json")):
        assert job.name.startswith("citeflow-")
        assert job.deadline_s > 0


def a_job(launcher, *conditions, deadline_hours=1.0):
    job = launcher.render(JobSpec(deadline_hours=deadline_hours), identity())
    created = "2026-11-28T12:00:00Z"
    job["metadata"] |= {"uid": "u", "resourceVersion": "7", "creationTimestamp": created}
    status = [{"type": type_, "status": value, "message": type_} for type_, value in conditions]
    states = [type_ for type_, value in conditions if value == "True"]
    of_ray = {"jobDeploymentStatus": states[-1] if states else "Running", "jobStatus": "SUCCEEDED"}
    return {**job, "status": of_ray if launcher is RAYJOB else {"conditions": status}}


@pytest.mark.parametrize(
    ("condition", "succeeded"),
    [
        ("Succeeded", {"pytorchjob": True, "trainjob": None}),
        ("Complete", {"pytorchjob": None, "trainjob": True, "ray": True}),
        ("Failed", {"pytorchjob": False, "trainjob": False, "ray": False}),
        *((other, {}) for other in ("Created", "Running", "Restarting", "Suspended")),
    ],
)
def test_end_is_the_terminal_condition(launcher, condition, succeeded):
    job = launcher.status(a_job(launcher, ("Running", "False"), (condition, "True")))
    expected = succeeded.get(launcher.name)
    assert (job.end.succeeded if job.end else None) == expected
    assert launcher.status(a_job(launcher, (condition, "False"))).end is None
    assert launcher.status({**a_job(launcher), "status": {"conditions": None}}).end is None
    assert job.is_suspended == (condition == "Suspended")


def test_overdue_counts_from_the_start_unless_suspended(launcher):
    noon = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)
    job = launcher.status(a_job(launcher))
    assert job.overdue_s(noon) == -3600
    assert job.overdue_s(noon + datetime.timedelta(hours=2)) == 3600
    suspended = launcher.status(a_job(launcher, ("Suspended", "True")))
    assert suspended.overdue_s(noon + datetime.timedelta(hours=2)) == -math.inf


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "STOPPED"),
        ({"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded"),
        (
            {"jobDeploymentStatus": "Failed", "reason": "AppFailed", "message": "code 1\nlogs\n"},
            "AppFailed: code 1",
        ),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "no"}, "ValidationFailed: no"),
    ],
)
def test_end_of_a_rayjob_says_why(status, reason):
    end = RAYJOB.status({**a_job(RAYJOB), "status": status}).end
    assert (end.succeeded, end.reason) == (False, reason)


@pytest.mark.parametrize("state", ["", "Initializing", "Running", "Waiting", "Retrying"])
def test_rayjob_that_goes_on_has_no_end(state):
    status = {"jobDeploymentStatus": state, "jobStatus": "FAILED", "rayClusterName": "a-x7k2q"}
    job = RAYJOB.status({**a_job(RAYJOB), "status": status})
    assert (job.end, job.is_suspended, RAYJOB.pod_creator(job)) == (None, False, "a-x7k2q")


def test_pods_of_a_rayjob_are_told_apart_by_their_labels():
    bodies = []
    for name, labels in (
        ("a-x7k2q-head", {"ray.io/node-type": "head"}),
        ("a-x7k2q-workers-worker-9k2lp", {"ray.io/node-type": "worker"}),
        ("a-b8z4m", {}),
    ):
        body = copy.deepcopy(RECORDED["running"])
        body["metadata"] |= {"name": name, "labels": labels}
        bodies.append(body)
    pods = read(*bodies)
    assert [RAYJOB.replica(pod) for pod in pods] == ["head", "worker-9k2lp", "submitter"]
    assert [RAYJOB.has_log(pod) for pod in pods] == [False, False, True]
    assert [RAYJOB.takes_place(pod) for pod in pods] == [True, True, False]
