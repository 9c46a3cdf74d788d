"""Places of a job's pods, as they are seen one after the other."""

import copy
import datetime
from types import SimpleNamespace

import pytest
from clusters import PYTORCHJOB
from fakes.operator import RECORDED
from kubernetes import client as k8s

from citeflow.errors import TrainingError
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import PodStatus
from citeflow.kubernetes.placement import Placement
from citeflow.kubernetes.scheduling import Node

CORDON = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable."
NOW = datetime.datetime(2026, 11, 28, 12, tzinfo=datetime.UTC)


def pods(state, *, deleted=False, words=""):
    """Return two pods in a recorded state."""
    body = copy.deepcopy(RECORDED[state])
    if deleted:
        body["metadata"]["deletionTimestamp"] = "2026-11-28T12:00:00Z"
    for condition in body["status"].get("conditions", []):
        condition["message"] = words or condition.get("message")
    with k8s.ApiClient() as api:
        return [PodStatus.read(api._ApiClient__deserialize(body, "V1Pod"))] * 2


@pytest.mark.fault("F41")
def test_gives_back_counts_no_pod_that_is_being_deleted_and_names_a_cordon():
    nodes = [Node(labels={}, allocatable={"cpu": cpu, "memory": "9Gi"}) for cpu in ("1", "8")]
    client = SimpleNamespace(events=lambda about: [], nodes=lambda: nodes)
    seconds = iter(range(0, 10**6, 60))
    placement = Placement(
        client=client, launcher=PYTORCHJOB, spec=JobSpec(cpu="2"), name="a",
        clock=lambda: next(seconds),
    )  # fmt: skip
    job = SimpleNamespace(end=None, is_suspended=False, created=NOW)
    raised = None
    for _ in range(9):
        placement.update(job, pods("running", deleted=True))
        placement.update(job, pods("unschedulable", words=CORDON))
        try:
            assert not placement.gives_back()
        except TrainingError as error:
            raised = error
    assert str(raised).startswith(f"error: no place for the pods of a, 0 of 2 have one: {CORDON}")
    assert "kubectl uncordon" in raised.hint
