import json
import math

import pytest
from fakes.kube_api import KubeApi
from fakes.recorded import recorded

from citeflow.cli.main import main
from citeflow.kubeflow import run_logs
from citeflow.kubernetes import client as cluster_api
from citeflow.kubernetes.launchers import LAUNCHERS

RUN = "pipeline/runid"
TOKEN = "planted-token-3f9a"


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with nothing on it but Kubeflow's kinds."""
    with KubeApi() as kube:

        def connect(**options):
            return cluster_api.KubeClient(api=kube.client(retries=False), **options)

        monkeypatch.setattr(cluster_api, "connect", connect)
        monkeypatch.setattr(run_logs, "POLL_S", 0.01)
        yield kube


@pytest.fixture
def call(capfd):
    """Runs a command; returns its exit code, the objects on stdout and the text on stderr."""

    def call(*argv):
        code = main(list(argv))
        out, err = capfd.readouterr()
        return code, [json.loads(line) for line in out.splitlines()], err

    return call


@pytest.fixture
def submit(call):
    def submit(*argv):
        code, (submitted,), _ = call("submit", "--run-name", "one", *argv)
        assert code == 0
        return submitted

    return submit


def pod(run_id, name, stage, container):
    of_worker = {launcher.container: launcher.pod_label for launcher in LAUNCHERS.values()}
    labels = {
        RUN: run_id,
        "app.kubernetes.io/part-of": "citeflow",
        "app.kubernetes.io/component": stage,
    }
    if container in of_worker:
        labels[of_worker[container]] = "job"
    names = ("wait", container)
    shared = {"restartCount": 0, "ready": True, "image": "i", "imageID": "i"}
    statuses = [{"name": each, "state": {"running": {}}, **shared} for each in names]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "kubeflow", "labels": labels},
        "spec": {"containers": [{"name": each, "image": "i"} for each in names]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }


def job(run_id, name):
    labels = {RUN: run_id, "app.kubernetes.io/managed-by": "citeflow"}
    metadata = {"name": name, "namespace": "kubeflow", "labels": labels}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {},
    }


def test_submit_turns_options_into_parameters(kfp, submit, tmp_path):
    (tmp_path / "job.yaml").write_text("cpu: 2\nmemory: 1Gi\n")
    argv = ["--dataset", "/mnt/citeflow/papers", "--workers", "4", "--launcher", "pytorchjob"]
    argv += ["--job", "job.yaml", "--preset", "seed", "--set", "train.epochs=3"]
    submitted = submit(*argv, "--param", "minutes=5")
    parameters = kfp.state.runs[0].runtime_config.parameters
    expected = {
        "dataset": "/mnt/citeflow/papers",
        "workers": 4,
        "launcher": "pytorchjob",
        "job": "{cpu: 2, memory: 1Gi}",
        "preset": "seed",
        "settings": "{train: {epochs: 3.0}}",
        "minutes": 5.0,
    }
    assert {name: parameters[name] for name in expected} == expected
    assert submitted["state"] == "PENDING"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--param", "worker=3"], "pipeline: worker\nhint: did you mean workers"),
        (["--workers", "3", "--param", "workers=4"], "parameter is given twice: workers"),
        (["--param", "workers"], "not of the form KEY=VALUE"),
        (["--set", "train.epoch=3"], "unknown setting: train.epoch"),
        (["--recurring", "0 3 * * 1"], "not a schedule of six fields"),
        (["--recurring", "0 0 3 * * 1", "--wait"], "--wait is for one run"),
        (["--host", f"http://me:{TOKEN}@127.0.0.1:1"], "no user, password or query in --host"),
    ],
)
def test_submit_reports_a_mistake_before_it_sends(kfp, call, argv, message):
    code, out, err = call("submit", *argv)
    assert (code, out, kfp.state.seen) == (64, [], [])
    assert message in err
    assert TOKEN not in err


def test_submit_dry_run_and_upload_only_start_no_run(kfp, call):
    argv = ["--dry-run", "--step-image", "step:2", "--recurring", "0 0 3 * * 1", "--catchup"]
    code, (planned,), _ = call("submit", *argv)
    assert (code, kfp.state.seen) == (0, [])
    assert planned["parameters"]["workers"] == 2
    assert len(planned["sha256"]) == 64
    assert planned["version"].startswith("citeflow-")
    assert (planned["cron"], planned["catchup"]) == ("0 0 3 * * 1", True)
    code, (uploaded,), _ = call("submit", "--upload-only")
    ids = (uploaded["pipeline_id"], uploaded["version_id"])
    assert uploaded["url"].endswith("/#/pipelines/details/{}/version/{}".format(*ids))
    assert (code, len(kfp.state.versions), kfp.state.runs) == (0, 1, [])


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 75), ("CANCELED", 143)])
def test_wait_ends_with_the_exit_code_of_the_run(kfp, call, state, code):
    kfp.state.states = ["PENDING", "RUNNING", state]
    waited, (run,), err = call("submit", "--wait")
    assert (waited, run["state"]) == (code, state)
    assert "run running" in err
    watched, (again,), _ = call("runs", "watch", run["run_id"])
    assert (watched, again["state"]) == (code, state)
    assert again["finished"] is not None


def recorded_pod(name, run_id):
    pod = recorded(f"kfp/step-pod-{name}")
    pod["metadata"]["labels"][RUN] = run_id
    return pod


@pytest.mark.parametrize("trouble", ["", "outage", "refusal"])
def test_watch_ends_with_the_error_of_the_step(kfp, cluster, call, submit, trouble):
    kfp.state.states = [*["RUNNING"] * 5, "FAILED"]
    run_id = submit()["run_id"]
    for name in ("failed", "unschedulable"):
        cluster.put(recorded_pod(name, run_id))
    if trouble:
        is_outage = trouble == "outage"
        cluster.fail(2 if is_outage else math.inf, status=503 if is_outage else 403)
    code, (run,), err = call("runs", "watch", run_id)
    assert (code, run["state"]) == (75, "FAILED")
    assert err.count("run does not see its pods") == bool(trouble)
    if trouble != "refusal":
        assert "run pods of=download are=1 pending, 0/1 nodes are available" in err
        job = "citeflow-synthetic-1ef9460d-21504c0bd8"
        last = f"error: failed at train: the job has passed its deadline: {job}\n"
        assert err.endswith(f"{last}hint: raise deadline_hours in `job`\n")
    else:
        assert err.endswith(f"failed at train: {run_id}\nhint: `citeflow runs logs {run_id}`\n")


def test_runs_list_has_the_newest_first(kfp, call, submit):
    submit("--launcher", "trainjob")
    submit("--experiment", "other")
    code, (newest, oldest), _ = call("runs", "list")
    assert (code, newest["launcher"], oldest["launcher"]) == (0, "auto", "trainjob")
    assert (newest["name"], newest["state"], newest["finished"]) == ("one", "PENDING", None)
    assert call("runs", "list", "--experiment", "other")[1] == [newest]
    assert call("runs", "list", "--limit", "1")[1] == [newest]
    assert call("runs", "list", "--experiment", "none")[0] == 66


def test_runs_logs_has_the_working_containers_of_all_pods(kfp, cluster, submit, capfd):
    run_id = submit()["run_id"]
    for name, stage, container in [
        ("citation-x-1", "train", "main"),
        ("job-worker-1", "train", "pytorch"),
        ("job-node-0-1-x7k2q", "train", "node"),
        ("citation-x-2", "evaluate", "main"),
    ]:
        cluster.put(pod(run_id, name, stage, container))
        cluster.write_log("kubeflow", name, f"from {name}\nagain")
    cluster.put(pod("another", "other", "train", "main"))
    assert main(["runs", "logs", "one"]) == 0
    labels = {
        "train": "citation-x-1",
        "train worker-1": "job-worker-1",
        "train node-0-1": "job-node-0-1-x7k2q",
        "evaluate": "citation-x-2",
    }
    expected = [
        f"{label} | {line}" for label, name in labels.items() for line in (f"from {name}", "again")
    ]
    assert sorted(capfd.readouterr().out.splitlines()) == sorted(expected)
    asked = [each for each in cluster.requests if each.path.endswith("/log")]
    containers = sorted(each.query["container"] for each in asked)
    assert containers == ["main", "main", "node", "pytorch"]
    assert main(["runs", "logs", "one", "--step", "evaluate"]) == 0
    assert capfd.readouterr().out == "evaluate | from citation-x-2\nevaluate | again\n"


def test_runs_logs_follow_shows_each_line_once(kfp, cluster, submit, capfd):
    run_id = submit()["run_id"]
    kfp.state.states = ["RUNNING"] * 4 + ["SUCCEEDED"]
    cluster.put(pod(run_id, "citation-x-1", "train", "main"))
    cluster.write_log("kubeflow", "citation-x-1", "first")
    reads = 0

    def write(number, request, when):
        nonlocal reads
        if when == "after" and request.resource == "pods":
            reads += 1
            if reads == 2:
                cluster.write_log("kubeflow", "citation-x-1", "second")

    cluster.on_request(write)
    assert main(["runs", "logs", run_id, "--follow"]) == 0
    assert capfd.readouterr().out == "train | first\ntrain | second\n"
    assert reads >= 4


@pytest.mark.parametrize("state", ["RUNNING", "FAILED"])
def test_runs_cancel_waits_and_deletes_the_jobs(kfp, cluster, call, submit, state):
    run_id = submit()["run_id"]
    cluster.put(job(run_id, "mine"))
    cluster.put(job("another", "theirs"))
    kfp.state.states = [state]
    code, (result,), _ = call("runs", "cancel", run_id)
    after = "CANCELED" if state == "RUNNING" else state
    assert (code, result["state"], result["deleted"]) == (0, after, ["PyTorchJob/mine"])
    assert [each["metadata"]["name"] for each in cluster.list("pytorchjobs")] == ["theirs"]


def test_runs_archive_leaves_a_run_out_of_the_list_and_rm_deletes_it(kfp, call, submit):
    kept, old = submit()["run_id"], submit()["run_id"]
    kfp.state.states = ["SUCCEEDED"]
    assert call("runs", "rm", old)[0] == 64
    assert call("runs", "archive", old)[:2] == (
        0,
        [{"run_id": old, "name": "one", "archived": True}],
    )
    assert [run["run_id"] for run in call("runs", "list")[1]] == [kept]
    assert [run["run_id"] for run in call("runs", "list", "--archived")[1]] == [old]
    (shown,) = call("runs", "show", old)[1]
    assert (shown["archived"], shown["parameters"]["workers"], shown["failed"]) == (True, 2, {})
    assert call("runs", "archive", "--undo", old)[0] == call("runs", "archive", old)[0] == 0
    assert call("runs", "rm", old)[0] == 0
    assert [run.run_id for run in kfp.state.runs] == [kept]
