import pytest
from clusters import NAMESPACE, RUN_ID

from citeflow import config
from citeflow.data.datasets import download_dataset
from citeflow.errors import ConfigError
from citeflow.graph.prepared import prepare
from citeflow.kubernetes import launch
from citeflow.kubernetes.identity import Owner
from citeflow.kubernetes.job_spec import JobRequest, JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.paths import RunPaths
from citeflow.training.launch import make_job

CONFIG = config.load(overrides=["synthetic.num_papers=200", "data.eval_negatives=20"])
POD = ("CITEFLOW_POD_NAME", "CITEFLOW_POD_UID", "KFP_POD_NAME", "KFP_POD_UID")


@pytest.fixture(autouse=True)
def outside_of_pods(monkeypatch):
    for name in POD:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    root = tmp_path_factory.mktemp("volume")
    raw = download_dataset("synthetic", data_root=root, config=CONFIG)
    return prepare(raw, data_root=root, config=CONFIG.data)


@pytest.fixture
def request_of(graph):
    root = graph.parents[1]

    def make(launcher, **settings):
        spec = JobSpec(volumes={"citeflow-data": str(root)}, **settings)
        return JobRequest(launcher=launcher.name, spec=spec, run_id=RUN_ID)

    return make


def test_train_on_cluster_refuses_folders_that_pods_do_not_see(tmp_path, graph, launcher):
    request = JobRequest(launcher=launcher.name, spec=JobSpec(), run_id=RUN_ID)
    with pytest.raises(ConfigError, match="do not see the folder"):
        launch.train_on_cluster(graph, RunPaths(tmp_path, "a"), config=CONFIG, request=request)


def test_render_job_tells_configs_apart_by_digest(tmp_path, request_of, graph):
    launcher = LAUNCHERS["pytorchjob"]
    run = RunPaths(tmp_path, "a")
    digests = set()
    names = set()
    for seed in (1, 2):
        task = make_job(graph, run, config.load(overrides=[f"train.seed={seed}"]))
        metadata = launch.render_job(request_of(launcher), run, NAMESPACE, task)["metadata"]
        digests.add(metadata["annotations"]["citeflow.org/spec-sha256"])
        names.add(metadata["name"])
    assert (len(digests), len(names)) == (2, 1)


def test_owner_of_jobs_is_this_pod_in_its_own_namespace(monkeypatch):
    assert launch.owner_of_jobs(NAMESPACE) is None
    monkeypatch.setenv("KFP_POD_NAME", "citation-x")
    monkeypatch.setenv("KFP_POD_UID", "u")
    assert launch.owner_of_jobs(NAMESPACE) == Owner(name="citation-x", uid="u")
    monkeypatch.setattr(launch, "own_namespace", lambda: NAMESPACE)
    assert launch.owner_of_jobs(NAMESPACE) is not None
    assert launch.owner_of_jobs("another") is None
