"""What is said of a run's pods, and of the errors that they leave."""

from types import SimpleNamespace

import pytest
from fakes.operator import RECORDED
from kubernetes import client as k8s

from citeflow.errors import DataError
from citeflow.kubeflow.outcome import read_error
from citeflow.kubeflow.watch import RunPods
from citeflow.kubernetes.job_status import PodStatus


def test_report_names_a_pod_without_a_stage_by_itself(capfd):
    with k8s.ApiClient() as api:
        pods = [
            PodStatus.read(api._ApiClient__deserialize({**RECORDED[state], **named}, "V1Pod"))
            for state, named in (
                ("unschedulable", {"metadata": {"name": "citation-x-root-driver"}}),
                ("image_pull_back_off", {"metadata": {"name": "citation-x-dag-driver"}}),
            )
        ]
    RunPods(run_id="r", cluster=SimpleNamespace(pods=lambda selector: pods)).report()
    said = capfd.readouterr().err
    assert "of=citation-x-root-driver are=1 pending, 0/1 nodes" in said
    assert "of=citation-x-dag-driver are=1 pending, ImagePullBackOff" in said


LEFT = '{"kind": "DataError", "what": "bad row", "value": "a.csv:{3}", "exit_code": 65}'


@pytest.mark.parametrize("message", [LEFT, f"task {{x}} ended: {LEFT}\nlast line", f"{{}} {LEFT}"])
def test_read_error_finds_the_error_among_other_words(message):
    error = read_error(message)
    assert (type(error), str(error)) == (DataError, "error: bad row: a.csv:{3}")


@pytest.mark.parametrize(
    "message", ["{}", '{"a": 1}', '{"a":' * 5000, '{"what": "x", "kind": 1, "exit_code": []}']
)  # fmt: skip
def test_read_error_takes_nothing_else_for_one(message):
    assert read_error(message) is None
