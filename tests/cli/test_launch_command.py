"""`launch`, `reap` and `doctor`, against a cluster in memory."""

import datetime
import json
import socket

import pytest
import yaml
from fakes.kube_api import timestamp
from fakes.operator import TrainingOperator

from citeflow.cli.main import main
from citeflow.kubernetes.identity import RUN_ID, JobIdentity, Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS

BASE = ["launch", "g", "--run-name", "a", "--data-root", "/mnt/citeflow"]


@pytest.fixture(params=LAUNCHERS)
def launcher(request):
    return LAUNCHERS[request.param]


@pytest.fixture
def argv(prepared):
    """The arguments of a launch whose pods would see the folder of the graph."""

    def make(name="pytorchjob", *more, job=""):
        root = str(prepared.data_root)
        words = ["launch", str(prepared.graph), "--data-root", root, "--run-name", f"cmd-{name}"]
        words += ["--launcher", name, "--job", f"{{volumes: {{citeflow-data: {root}}}{job}}}"]
        settings = [word for setting in prepared.settings for word in ("--set", setting)]
        return [*words, *settings, *more]

    return make


@pytest.fixture
def printed(capsys):
    """The job that `launch --dry-run` prints."""

    def run(words):
        assert main([*words, "--dry-run"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return yaml.safe_load(out)

    return run


def put_step(kube):
    metadata = {"name": "citation-x7k2q-2104", "namespace": "team"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    made = kube.put({**pod, "spec": {"containers": [{"name": "main", "image": "i"}]}})
    return Owner(name=made["metadata"]["name"], uid=made["metadata"]["uid"])


@pytest.mark.parametrize("in_a_step", [False, True])
def test_launch_sends_what_its_dry_run_prints(
    kube, launcher, in_a_step, argv, printed, monkeypatch, capsys
):
    if in_a_step:
        step = put_step(kube)
        monkeypatch.setenv("KFP_POD_NAME", step.name)
        monkeypatch.setenv("KFP_POD_UID", step.uid)
    words = argv(launcher.name, "--run-id", "8f14e45f", "--workers", "3", job=", cpu: 500m")
    job = printed(words)
    assert printed(words) == job
    assert kube.requests == []
    with TrainingOperator(kube, script=lambda pod: ["nothing to learn", 0]):
        assert main(words) == 75
    assert [seen.body for seen in kube.requests if seen.verb == "create"] == [job]
    metadata = job["metadata"]
    assert metadata["namespace"] == "team"
    assert metadata["labels"][RUN_ID] == "8f14e45f"
    assert [owner["uid"] for owner in metadata.get("ownerReferences", [])] == (
        [step.uid] if in_a_step else []
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert "| nothing to learn" in err
    assert err.splitlines()[-2].startswith("error: ")


def test_launch_dry_run_needs_no_cluster(no_cluster, launcher, argv, printed, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    words = argv(launcher.name)
    words[1] = "/mnt/citeflow/prepared/not-made-yet"
    job = printed(words)
    assert (job["kind"], job["metadata"]["namespace"]) == (launcher.kind, "default")


def test_launch_reads_the_job_from_text_file_and_options(no_cluster, printed, tmp_path):
    (tmp_path / "job.yaml").write_text(f"cpu: 3\ngpus: 2\nvolumes: {{c: {tmp_path}}}\n")
    words = ["launch", "x", "--run-name", "a", "--data-root", "data", "--workers", "3"]
    words += ["--launcher", "trainjob", "--namespace", "lab", "--job"]
    job = printed([*words, "job.yaml"])
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
    assert trainer["resourcesPerNode"]["limits"]["cpu"] == "3"
    assert trainer["args"][-1] == f"{tmp_path}/data/runs/a/job.json"
    assert job["metadata"]["namespace"] == "lab"
    text = f"{{workers: 5, volumes: {{c: {tmp_path}}}}}"
    assert printed([*words, text])["spec"]["trainer"]["numNodes"] == 5


def test_launch_refuses_a_job_of_other_settings(kube, argv, printed, capsys):
    other = printed(argv("pytorchjob", "--preset", "seed"))
    assert other["metadata"]["name"] == printed(argv())["metadata"]["name"]
    kube.put(other)
    assert main(argv()) == 64
    assert "of the same run with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["launch", "--run-name", "a"], 64, "GRAPH"),
        ([*BASE, "--launcher", "local"], 64, "--launcher"),
        ([*BASE, "--job", "{worker: 2}"], 64, "did you mean workers"),
        ([*BASE, "--job", "cpu: lots"], 64, "job.cpu: lots"),
        ([*BASE, "--job", "{cpu: 4"], 64, "job is not YAML"),
        ([*BASE, "--job", "none.yaml"], 66, "no such file: none.yaml"),
        ([*BASE, "--job", "."], 66, "no such file: ."),
        ([*BASE, "--run-id", "a b"], 64, "run id: a b"),
        ([*BASE, "--namespace", "Kube Flow"], 64, "namespace: Kube Flow"),
        ([*BASE, "--data-root", "/home/me"], 64, "do not see the folder: /home/me/runs/a"),
    ],
)
def test_launch_checks_its_options_first(kube, capsys, words, code, message):
    assert main([*words, "--dry-run"]) == code
    out, err = capsys.readouterr()
    assert (out, err[:7]) == ("", "error: ")
    assert message in err
    assert kube.requests == []


@pytest.mark.parametrize("command", ["launch", "reap"])
def test_commands_report_that_there_is_no_cluster(no_cluster, command, argv, capsys):
    assert main(argv() if command == "launch" else ["reap"]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no connection to a cluster")
    assert "KUBECONFIG" in err


def test_launch_requires_the_graph(kube, argv, capsys):
    words = argv()
    words[1] = "/nowhere"
    assert main(words) == 66
    assert "/nowhere" in capsys.readouterr().err
    assert kube.requests == []


def test_reap_deletes_orphans_and_dry_run_none(kube, launcher, capsys):
    step = put_step(kube)
    kube.remove("pods", "team", step.name)
    identity = JobIdentity(
        namespace="team", run_id="r", run_name="a", job_file="/mnt/citeflow/job.json", owner=step
    )
    job = launcher.render(JobSpec(), identity)
    old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    job["metadata"]["creationTimestamp"] = timestamp(old)
    kube.store.collect_garbage = lambda: None  # or the job would be gone at once
    kube.put(job)
    names = [job["metadata"]["name"]]
    for options, left in (["--dry-run"], names), ([], []):
        assert main(["reap", *options]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out) == {"deleted": names}
        assert ("would delete" if options else "deleted") in err
        assert [each["metadata"]["name"] for each in kube.list(launcher.plural)] == left
    assert {seen.namespace for seen in kube.requests} == {"team"}


def test_reap_looks_into_the_namespace_of_its_option(kube, capsys):
    assert main(["reap", "--namespace", "kubeflow"]) == 0
    assert json.loads(capsys.readouterr().out) == {"deleted": []}
    assert {seen.namespace for seen in kube.requests} == {"kubeflow"}


def test_doctor_reports_what_is_missing(kube, kfp, capsys):
    assert main(["doctor", "--json", "--namespace", "team"]) == 69
    out, err = capsys.readouterr()
    found = {each["what"]: each for each in map(json.loads, out.splitlines())}
    assert found["Kubernetes API"]["value"].endswith("namespace team")
    assert found["version of Kubeflow Pipelines"]["value"] == "2.17.0"
    missing = [what for what, each in found.items() if each["status"] == "missing"]
    assert "CronJob citeflow-reaper" in missing
    assert f"error: missing: {', '.join(missing)}" in err
    assert main(["doctor", "--namespace", "team"]) == 69
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("missing  CronJob"))
    assert "kubectl apply -k" in lines[at + 1]


@pytest.mark.parametrize(
    ("options", "status"), [([], "note"), (["--service-account", "runner"], "missing")]
)
def test_doctor_without_a_cluster(no_cluster, options, status, capsys):
    assert main(["doctor", "--json", *options]) == (69 if status == "missing" else 0)
    found = {each["what"]: each for each in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["cluster"]["status"] == status
    assert "Kubeflow Pipelines" not in found


def test_doctor_local_looks_at_no_cluster(kube, capsys):
    assert main(["doctor", "--json", "--local"]) == 0
    found = [json.loads(line)["what"] for line in capsys.readouterr().out.splitlines()]
    assert "a local run ignores claims" in found
    assert kube.requests == []
