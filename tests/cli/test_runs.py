import json
import sys

import pytest
from fakes.kfp_server import serving
from fakes.kube_api import KubeApi

from citeflow.cli import main
from citeflow.kubeflow import api as kfpapi
from citeflow.kubeflow import client as kfpserver
from citeflow.kubeflow import run_logs
from citeflow.kubernetes import client as cluster_api

RUN = "pipeline/runid"
TOKEN = "planted-token-3f9a"


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(kfpapi, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(kfpapi, "PATIENCE_S", 0.3)
    monkeypatch.setattr(kfpserver, "SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr(run_logs, "POLL_S", 0.01)
    from kfp import client

    monkeypatch.setattr(
        client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "home" / "context.json")
    )
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def kfp(monkeypatch):
    with serving() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with nothing on it but Kubeflow's kinds."""
    with KubeApi() as kube:

        def connect(*, namespace):
            return cluster_api.KubeClient(api=kube.client(retries=False), namespace=namespace)

        monkeypatch.setattr(cluster_api, "connect", connect)
        yield kube


def called(capfd, *arguments):
    """Exit code, objects on stdout, text on stderr."""
    code = main(list(arguments))
    out, err = capfd.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def submitted(capfd, *arguments):
    code, (made,), _ = called(capfd, "submit", "--run-name", "one", *arguments)
    assert code == 0
    return made


def pod(run_id, name, step, container):
    labels = {
        RUN: run_id,
        "app.kubernetes.io/part-of": "citeflow",
        "app.kubernetes.io/component": step,
    }
    state = {
        "name": container,
        "restartCount": 0,
        "ready": True,
        "image": "i",
        "imageID": "i",
        "state": {"running": {}},
    }
    sidecar = {**state, "name": "wait"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kubeflow", "labels": labels},
        "spec": {"containers": [{"name": "wait", "image": "i"}, {"name": container, "image": "i"}]},
        "status": {"phase": "Running", "containerStatuses": [sidecar, state]},
    }


def job(run_id, name):
    labels = {RUN: run_id, "app.kubernetes.io/managed-by": "citeflow"}
    meta = {"name": name, "namespace": "kubeflow", "labels": labels}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, "spec": {}}


def test_options_become_parameters_of_the_run(kfp, capfd, tmp_path):
    (tmp_path / "job.yaml").write_text("cpu: 2\n")
    options = [
        "--dataset",
        "/mnt/citeflow/papers",
        "--workers",
        "4",
        "--launcher",
        "pytorchjob",
        "--job",
        "job.yaml",
    ]
    made = submitted(
        capfd, *options, "--preset", "seed", "--set", "train.epochs=3", "--param", "minutes=5"
    )
    parameters = kfp.state.runs[0].runtime_config.parameters
    wanted = {
        "dataset": "/mnt/citeflow/papers",
        "workers": 4,
        "launcher": "pytorchjob",
        "job": "cpu: 2\n",
        "preset": "seed",
        "settings": "train:\n  epochs: 3.0\n",
        "minutes": 5.0,
    }
    assert {name: parameters[name] for name in wanted} == wanted
    assert made["state"] == "PENDING"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--param", "worker=3"],
            "unknown parameter of the pipeline: worker\nhint: did you mean workers",
        ),
        (["--workers", "3", "--param", "workers=4"], "parameter is given twice: workers"),
        (["--param", "workers"], "not of the form KEY=VALUE"),
        (["--set", "train.epoch=3"], "unknown setting: train.epoch"),
        (["--recurring", "0 3 * * 1"], "not a schedule of six fields"),
        (["--recurring", "0 0 3 * * 1", "--wait"], "--wait is for one run"),
        (["--host", f"http://me:{TOKEN}@127.0.0.1:1"], "no user, password or query in --host"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_sent(kfp, capfd, options, words):
    code, out, err = called(capfd, "submit", *options)
    assert (code, out, kfp.state.seen) == (64, [], [])
    assert words in err
    assert TOKEN not in err


def test_a_dry_run_prints_the_request_and_sends_nothing(kfp, capfd):
    code, (told,), _ = called(
        capfd, "submit", "--dry-run", "--step-image", "step:2", "--run-name", "one"
    )
    assert (code, kfp.state.seen) == (0, [])
    assert told["parameters"]["workers"] == 2
    assert len(told["sha256"]) == 64
    assert told["version"].startswith("citeflow-")


def test_an_upload_alone_starts_no_run(kfp, capfd):
    code, (made,), _ = called(capfd, "submit", "--upload-only")
    assert code == 0
    assert made["url"].endswith(
        f"/#/pipelines/details/{made['pipeline_id']}/version/{made['version_id']}"
    )
    assert (len(kfp.state.versions), kfp.state.runs) == (1, [])


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 75), ("CANCELED", 143)])
def test_waiting_ends_with_the_state_of_the_run_and_its_exit_code(kfp, capfd, state, code):
    kfp.state.states = ["PENDING", "RUNNING", state]
    given, (made,), err = called(capfd, "submit", "--wait")
    assert (given, made["state"]) == (code, state)
    assert "run running" in err
    watched, (again,), _ = called(capfd, "runs", "watch", made["run_id"])
    assert (watched, again["state"]) == (code, state)


def test_a_token_is_in_no_output_and_not_among_the_arguments(capfd, tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    with serving(token=TOKEN) as kfp:
        arguments = ["submit", "--host", kfp.url, "--token-file", "token", "--upload-only"]
        code, out, err = called(capfd, *arguments)
        assert code == 0
        assert TOKEN not in f"{out} {err} {sys.argv} {kfp.state.uploaded}"
        assert kfp.state.seen[-1].headers["authorization"] == f"Bearer {TOKEN}"


def test_runs_are_listed_the_newest_first_each_with_its_launcher(kfp, capfd):
    submitted(capfd, "--launcher", "trainjob")
    submitted(capfd, "--experiment", "other")
    code, (newest, oldest), _ = called(capfd, "runs", "list")
    assert (code, newest["launcher"], oldest["launcher"]) == (0, "local", "trainjob")
    assert (newest["name"], newest["state"], newest["finished"]) == ("one", "PENDING", None)
    assert called(capfd, "runs", "list", "--experiment", "other")[1] == [newest]
    assert called(capfd, "runs", "list", "--limit", "1")[1] == [newest]
    assert called(capfd, "runs", "list", "--experiment", "none")[0] == 66


def test_logs_are_those_of_the_containers_that_work_in_all_pods_of_the_run(kfp, cluster, capfd):
    run_id = submitted(capfd)["run_id"]
    for name, step, container in [
        ("citation-x-1", "train", "main"),
        ("job-worker-1", "train", "pytorch"),
    ]:
        cluster.put(pod(run_id, name, step, container))
        cluster.write_log("kubeflow", name, f"from {name}\nagain", container)
        cluster.write_log("kubeflow", name, "of no interest", "wait")
    cluster.put(pod(run_id, "citation-x-2", "evaluate", "main"))
    cluster.write_log("kubeflow", "citation-x-2", "mrr", "main")
    cluster.put(pod("another", "other", "train", "main"))
    assert main(["runs", "logs", "one"]) == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    train = [
        "train worker-1 | again",
        "train worker-1 | from job-worker-1",
        "train | again",
        "train | from citation-x-1",
    ]
    assert lines == sorted([*train, "evaluate | mrr"])
    assert main(["runs", "logs", "one", "--step", "evaluate"]) == 0
    assert capfd.readouterr().out == "evaluate | mrr\n"


def test_followed_logs_end_with_the_run_and_show_each_line_once(kfp, cluster, capfd):
    run_id = submitted(capfd)["run_id"]
    kfp.state.states = ["RUNNING"] * 4 + ["SUCCEEDED"]
    cluster.put(pod(run_id, "citation-x-1", "train", "main"))
    cluster.write_log("kubeflow", "citation-x-1", "first", "main")
    count = 0

    def write(number, request, when):
        nonlocal count
        if when == "after" and request.resource == "pods":
            count += 1
            if count == 2:
                cluster.write_log("kubeflow", "citation-x-1", "second", "main")

    cluster.on_request(write)
    assert main(["runs", "logs", run_id, "--follow"]) == 0
    assert capfd.readouterr().out == "train | first\ntrain | second\n"
    assert count >= 4


def test_logs_of_a_run_without_pods_are_an_error(kfp, cluster, capfd):
    run_id = submitted(capfd)["run_id"]
    code, _, err = called(capfd, "runs", "logs", run_id)
    assert (code, "the run has no pods" in err) == (66, True)


def test_a_cancelled_run_is_waited_for_and_its_jobs_are_deleted(kfp, cluster, capfd):
    run_id = submitted(capfd)["run_id"]
    cluster.put(job(run_id, "mine"))
    cluster.put(job("another", "theirs"))
    code, (told,), err = called(capfd, "runs", "cancel", "one")
    assert (code, told) == (
        0,
        {"run_id": run_id, "state": "CANCELED", "deleted": ["PyTorchJob/mine"]},
    )
    assert [each["metadata"]["name"] for each in cluster.list("pytorchjobs")] == ["theirs"]
    assert "deleted job=PyTorchJob/mine" in err


def test_a_run_that_has_ended_is_not_asked_to_but_its_jobs_go(kfp, cluster, capfd):
    run_id = submitted(capfd)["run_id"]
    kfp.state.states = ["FAILED"]
    cluster.put(job(run_id, "left"))
    code, (told,), _ = called(capfd, "runs", "cancel", run_id)
    assert (code, told["state"], told["deleted"]) == (0, "FAILED", ["PyTorchJob/left"])
    assert not kfp.calls("POST", f"/runs/{run_id}")


def test_a_cluster_that_knows_no_such_jobs_is_no_error(kfp, monkeypatch, capfd):
    run_id = submitted(capfd)["run_id"]
    with KubeApi(without=("pytorchjobs", "trainjobs")) as kube:
        api = cluster_api.KubeClient(api=kube.client(retries=False), namespace="kubeflow")
        monkeypatch.setattr(cluster_api, "connect", lambda namespace: api)
        code, (told,), _ = called(capfd, "runs", "cancel", run_id)
    assert (code, told["deleted"]) == (0, [])
