"""Real training in the pods of a job: every pod is a process with torchrun, started by the operator in memory."""

import time

import psutil
import pytest
from clusters import NAMESPACE, connect
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow import config, files, stages
from citeflow.kubernetes import launch as cluster_train
from citeflow.kubernetes import watcher
from citeflow.kubernetes.job_spec import JobRequest, JobSpec

SETTINGS = ["model.predictor=dot", "train.epochs=60", "train.num_validations=20"]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Look at the job all the time, as a test can."""
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 2)


def train(prepared, name, kind, monkeypatch, *, during=None):
    """The stage `train` as a job of two pods; `during(kube)` is called at each of the launcher's pauses."""
    root = prepared.data_root
    request = JobRequest(
        kind=kind, spec=JobSpec(volumes={"citeflow-data": str(root)}), run_id="a-run"
    )

    def sleep(seconds):
        time.sleep(0.2)
        if during:
            during(kube)

    with KubeApi() as kube, TrainingOperator(kube, real=True, restart_delay=0.2, grace=20):
        monkeypatch.setattr(
            cluster_train, "connect", lambda **given: connect(kube.url, sleep=sleep)
        )
        return stages.train(
            prepared.graph,
            run_dir=root / "runs" / name,
            log_dir=root / "logs" / name,
            config=config.load(overrides=[*prepared.settings, *SETTINGS]),
            workers=2,
            request=request,
        )


@pytest.fixture(scope="module")
def undisturbed(prepared):
    """The digest of the model that two pods make which nobody disturbs, and the model."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        model = train(prepared, "undisturbed", "PyTorchJob", monkeypatch)
    return digest(model), model


def digest(model):
    return files.sha256_of_file(model / "model.safetensors")


def test_pods_make_the_model_and_its_logs(prepared, undisturbed):
    manifest = files.verify(undisturbed[1], "TrainedModel")
    assert manifest.inputs["workers"] == 2
    assert manifest.facts["valid_mrr"] > 0.1
    assert list((prepared.data_root / "logs" / "undisturbed").glob("events.*"))


def test_a_train_job_makes_the_same_model(prepared, undisturbed, monkeypatch):
    assert digest(train(prepared, "trainjob", "TrainJob", monkeypatch)) == undisturbed[0]


@pytest.mark.fault("F4")
@pytest.mark.parametrize("victim", ["worker-0", "worker-1"])
def test_a_pod_that_is_deleted_during_training_changes_nothing(
    prepared, undisturbed, monkeypatch, figure, victim
):
    uids = []

    def delete(kube):
        pod = next(
            (pod for pod in kube.list("pods") if pod["metadata"]["name"].endswith(victim)), None
        )
        if (
            pod
            and not uids
            and (prepared.data_root / "runs" / f"without-{victim}" / "checkpoints").exists()
        ):
            kube.store.delete(kube.store.kind_of("pods"), NAMESPACE, pod["metadata"]["name"])
            uids.append(pod["metadata"]["uid"])
        if pod and uids and pod["metadata"]["uid"] not in uids:
            uids.append(pod["metadata"]["uid"])

    model = train(prepared, f"without-{victim}", "PyTorchJob", monkeypatch, during=delete)
    assert len(uids) == 2
    assert digest(model) == undisturbed[0]
    figure(pods_deleted=1)


def is_worker(process):
    try:
        return "citeflow.training.worker" in process.cmdline()[2:4]
    except psutil.Error:
        return False


@pytest.mark.fault("F1")
def test_a_worker_process_that_is_killed_changes_nothing(
    prepared, undisturbed, monkeypatch, figure
):
    killed = []

    def kill(kube):
        if not killed and (prepared.data_root / "runs" / "killed" / "checkpoints").exists():
            process = next(filter(is_worker, psutil.Process().children(recursive=True)))
            process.kill()
            killed.append(process.pid)

    model = train(prepared, "killed", "PyTorchJob", monkeypatch, during=kill)
    assert killed
    assert digest(model) == undisturbed[0]
    figure(identical=1, runs=1, kills=1)
