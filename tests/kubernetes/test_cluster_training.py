"""Real training in the pods of a job: each pod is a process with torchrun."""

import time

import pytest
import yaml
from clusters import NAMESPACE, connect
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow import config, files
from citeflow.data.datasets import download_dataset
from citeflow.graph.preparation import prepare
from citeflow.kubeflow import local_runner
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes import launch, watcher
from citeflow.kubernetes.job_spec import JobRequest, JobSpec
from citeflow.paths import RunPaths

SETTINGS = [
    "synthetic.num_papers=400",
    "data.holdout=0.2",
    "data.eval_negatives=50",
    "model.hidden_channels=16",
    "model.predictor=dot",
    "train.epochs=24",
    "train.nodes_per_batch=100",
    "train.num_negatives=64",
    "train.lr=0.01",
    "train.num_validations=8",
]
CONFIG = config.load(overrides=SETTINGS)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def graph(root):
    raw = download_dataset("synthetic", data_root=root, config=CONFIG)
    return prepare(raw, data_root=root, config=CONFIG.data)


@pytest.fixture(scope="module")
def train(root, graph):
    """Train in two pods; `during(kube, operator, run)` is called at each pause of the launcher."""

    def train(name, launcher, during=None):
        run = RunPaths(root, name)
        spec = JobSpec(volumes={"citeflow-data": str(root)})
        request = JobRequest(launcher=launcher, spec=spec, run_id="a-run")

        def sleep(seconds):
            time.sleep(0.2)
            if during and run.checkpoints.exists():
                during(kube, operator)

        with (
            KubeApi() as kube,
            TrainingOperator(kube, real=True, backoff=(0.2, 0.2), grace=20) as operator,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(launch, "connect", lambda **_: connect(kube.url, sleep=sleep))
            return launch.train_on_cluster(graph, run, config=CONFIG, request=request)

    return train


@pytest.fixture(scope="module")
def undisturbed(train):
    """The model of two pods that nobody disturbs."""
    return train("undisturbed", "pytorchjob")


def digest(model):
    return files.sha256_of_file(model / "model.safetensors")


def test_train_on_cluster_makes_model_and_logs(root, undisturbed):
    manifest = files.verify(undisturbed, "TrainedModel")
    assert manifest.inputs["workers"] == 2
    assert manifest.facts["valid_mrr"] > 0.1
    assert list((root / "logs" / "undisturbed").glob("events.*"))


@pytest.mark.fault("F4")
@pytest.mark.parametrize(
    ("launcher", "victim"), [("pytorchjob", "worker-0"), ("trainjob", "node-0-1")]
)
def test_train_on_cluster_deleted_pod_changes_no_bit(train, undisturbed, launcher, victim):
    uids = []

    def delete(kube, operator):
        for pod in kube.list("pods"):
            meta = pod["metadata"]
            if meta["name"].endswith(victim) and meta["uid"] not in uids:
                if not uids:
                    operator.delete_pod(NAMESPACE, meta["name"])
                uids.append(meta["uid"])

    model = train(f"deleted-{launcher}", launcher, delete)
    assert len(uids) == 2
    assert digest(model) == digest(undisturbed)


@pytest.mark.fault("F1", nightly=True)
def test_train_on_cluster_by_ray_makes_the_same_bits(train, undisturbed, capfd):
    """KubeRay's stand-in runs the job's own command, on a Ray of this machine."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    assert digest(train("ray", "ray")) == digest(undisturbed)
    err = capfd.readouterr().err
    assert "submitter | worker-0 | " in err
    assert "submitter | worker-1 | " in err


def test_compiled_pipeline_trains_in_pods(tmp_path, monkeypatch, capfd):
    """From the download to the report; only the cluster is a stand-in."""
    root = tmp_path / "data"
    root.mkdir()
    with KubeApi() as kube, TrainingOperator(kube, real=True):
        kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig", NAMESPACE)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        settings = config.load(overrides=[*SETTINGS, "train.epochs=3", "train.num_validations=3"])
        arguments = {
            "settings": config.to_yaml(settings),
            "workers": 2,
            "launcher": "pytorchjob",
            "job": yaml.safe_dump({"volumes": {"citeflow-data": str(root)}, "cpu": 1}),
            "run_name": "as-a-job",
            "out_dir": str(tmp_path / "out"),
            "data_root": str(root),
        }
        local_runner.run_pipeline(
            PIPELINES["citation"].compiled(), arguments, scratch=root, verbose=True
        )
        assert len(kube.list("pytorchjobs")) == 1
    report = files.read_json(tmp_path / "out" / "report.json")
    assert report["train"]["workers"] == 2
    assert report["test"]["mrr"] > 0.05
    assert "worker-0 | " in capfd.readouterr().err
