import json

import pytest
from clusters import NAMESPACE, RUN_ID, close, connect, owner
from fakes.operator import TrainingOperator

from citeflow import config
from citeflow.data.datasets import download_dataset
from citeflow.errors import ConfigError, TrainingError
from citeflow.graph.preparation import prepare
from citeflow.kubernetes import launch, logs, watcher
from citeflow.kubernetes.identity import Owner
from citeflow.kubernetes.job_spec import JobRequest, JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.paths import RunPaths
from citeflow.training.launch import make_job

CONFIG = config.load(overrides=["synthetic.num_papers=200", "data.eval_negatives=20"])
SECRET = "hunter2-planted"
POD = ("CITEFLOW_POD_NAME", "CITEFLOW_POD_UID", "KFP_POD_NAME", "KFP_POD_UID")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for name in POD:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 0.1)
    monkeypatch.setattr(logs, "REOPEN_S", 0.02)


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


@pytest.mark.fault("F36")
@pytest.mark.parametrize("in_a_step", [False, True])
def test_train_on_cluster_sends_what_render_job_shows(
    kube, client, graph, request_of, launcher, in_a_step, monkeypatch, capfd
):
    """What a dry run shows is what is sent, and no secret of the environment reaches it."""
    for name in ("AWS_SECRET_ACCESS_KEY", "KF_PIPELINES_TOKEN", "DATABASE_URL"):
        monkeypatch.setenv(name, SECRET)
    if in_a_step:
        step = owner(kube, "citation-x7k2q-2104")
        monkeypatch.setenv("KFP_POD_NAME", step.name)
        monkeypatch.setenv("KFP_POD_UID", step.uid)
    client.api.configuration.api_key["authorization"] = f"Bearer {SECRET}"
    monkeypatch.setattr(launch, "connect", lambda **_: client)
    run = RunPaths(graph.parents[1], f"sent-{launcher.name}-{in_a_step}".lower())
    request = request_of(launcher, workers=3, restarts=0)
    task = make_job(graph, run, CONFIG)
    job = launch.render_job(launch.with_memory(request, task), run, NAMESPACE, task)
    with TrainingOperator(kube, script=lambda pod: ["nothing to learn", 0]):
        kube.fail(2, status=503, message="too busy")
        with pytest.raises(TrainingError):
            launch.train_on_cluster(graph, run, config=CONFIG, request=request)
    created = [seen.body for seen in kube.requests if seen.verb == "create"]
    assert created[-1] == job
    assert ("ownerReferences" in job["metadata"]) == in_a_step
    err = capfd.readouterr().err
    assert "| nothing to learn" in err
    requests = [[seen.path, seen.query, seen.body] for seen in kube.requests]
    written = [path.read_text() for path in run.folder.rglob("*") if path.is_file()]
    assert len(written) > 0
    objects = json.dumps([requests, kube.list("pods"), kube.list(launcher.plural)])
    assert SECRET not in objects + err + "".join(written)


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


def test_refusals_show_no_token(kube, graph, request_of, launcher, monkeypatch):
    client = connect(kube.url)
    client.api.configuration.api_key["authorization"] = f"Bearer {SECRET}"
    monkeypatch.setattr(launch, "connect", lambda **_: client)
    run = RunPaths(graph.parents[1], "refused")
    for status in (401, 403, 422):
        kube.fail(status=status, message="no")
        with pytest.raises(ConfigError, match="the cluster refuses: no") as told:
            launch.train_on_cluster(graph, run, config=CONFIG, request=request_of(launcher))
        assert SECRET not in str(told.value)
    close(client)


@pytest.mark.fault("F42")
def test_train_on_cluster_says_what_a_killed_training_needs(
    kube, client, graph, request_of, monkeypatch
):
    monkeypatch.setattr(launch, "connect", lambda **_: client)
    request = request_of(LAUNCHERS["pytorchjob"], memory="220Mi", shared_memory="64Mi")
    run = RunPaths(graph.parents[1], "killed")

    def script(pod):
        name = pod["metadata"]["name"]
        return [lambda: operator.finish(name, 137, "OOMKilled")]

    with TrainingOperator(kube, script=script, backoff=(0.3, 0.3)) as operator:
        match = r"out of memory: limit 220 MiB, needs about \d{3} MiB"
        with pytest.raises(TrainingError, match=match) as caught:
            launch.train_on_cluster(graph, run, config=CONFIG, request=request)
    assert caught.value.hint.startswith("raise memory in `job`; lower train.nodes_per_batch")
