"""The log of a run that is collected from its pods, whoever is killed meanwhile."""

import pytest
from fakes.controllers import Controllers
from fakes.kube_api import KubeApi

from citeflow.kubernetes.client import KubeClient
from citeflow.platform.backends.pod_log import LOG, POSITIONS, PodLog

LABELS = {"pipeline/runid": "1", "app.kubernetes.io/part-of": "citeflow"}
WORKER = {**LABELS, "training.kubeflow.org/job-name": "job"}


class Pods:
    """Pods of a run that write as a test says."""

    def __init__(self, kube, client):
        self.kube = kube
        self.client = client
        self.controllers = Controllers(kube)

    def make(self, name, labels, container="main"):
        metadata = {"name": name, "namespace": "kubeflow", "labels": labels}
        spec = {"containers": [{"name": container, "image": "i"}]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.controllers.start_pod(self.kube.put(pod))

    def write(self, pod, *lines):
        for line in lines:
            self.kube.write_log("kubeflow", pod, line)


@pytest.fixture
def pods():
    with KubeApi() as kube:
        api = kube.client(retries=False)
        yield Pods(kube, KubeClient(api=api, namespace="kubeflow", patience_s=0.1))
        api.close()
        api.rest_client.pool_manager.clear()


def collected(pods, log, has_ended=False):
    log.collect(pods.client, "1", 1, has_ended=has_ended)
    return log.lines(0)[0]


def test_each_line_is_collected_once(pods, tmp_path):
    log = PodLog(tmp_path)
    pods.make("step", LABELS)
    pods.write("step", "a", "b")
    assert collected(pods, log) == ["a", "b"]
    pods.write("step", "c", "d é", "")
    for _ in range(3):
        assert collected(pods, log) == ["a", "b", "c", "d é", ""]
    assert log.lines(2) == (["c", "d é", ""], (tmp_path / LOG).stat().st_size)
    assert log.lines(5, known=(2, 4))[0] == []


def test_lines_of_workers_come_once_though_their_step_prints_them_too(pods, tmp_path):
    log = PodLog(tmp_path)
    pods.make("step", LABELS)
    pods.make("job-worker-0", WORKER, "pytorch")
    pods.write("job-worker-0", "12:00:00 train[rank 0] step", "Traceback")
    pods.write("step", "12:00:00 train starts", "worker-0 | 12:00:00 train[rank 0] step")
    expected = ["12:00:00 train[rank 0] step", "worker-0 | Traceback", "12:00:00 train starts"]
    assert collected(pods, log) == expected
    pods.kube.remove("pods", "kubeflow", "job-worker-0")
    pods.write("step", "worker-0 | Traceback", "worker-1 | seen by the step alone")
    assert collected(pods, log) == [*expected, "worker-1 | seen by the step alone"]


def test_line_that_was_not_written_down_is_collected_again(pods, tmp_path):
    log = PodLog(tmp_path)
    pods.make("step", LABELS)
    pods.write("step", "a")
    collected(pods, log)
    before = (tmp_path / POSITIONS).read_text()
    pods.write("step", "b")
    collected(pods, log)
    with (tmp_path / LOG).open("a") as file:
        file.write("half a li")
    (tmp_path / POSITIONS).write_text(before)  # as if the server had been killed before it
    assert log.lines(0)[0] == ["a"]
    assert collected(pods, log) == ["a", "b"]


def test_log_of_a_container_that_has_not_started_is_none(pods, tmp_path):
    log = PodLog(tmp_path)
    metadata = {"name": "step", "namespace": "kubeflow", "labels": LABELS}
    spec = {"containers": [{"name": "main"}]}
    pods.kube.put(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": spec,
            "status": {"phase": "Pending"},
        }
    )
    assert collected(pods, log) == []
    assert not (tmp_path / LOG).exists()


def test_attempt_that_was_read_to_its_end_is_complete(pods, tmp_path):
    log = PodLog(tmp_path)
    assert not log.is_complete(1)
    collected(pods, log, has_ended=True)
    assert log.is_complete(1)
    assert not log.is_complete(2)
