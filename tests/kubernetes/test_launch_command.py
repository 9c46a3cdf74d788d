"""`citeflow launch`: what it prints is what it sends."""

import socket

import pytest
import yaml
from clusters import NAMESPACE, owner
from fakes.operator import TrainingOperator
from kubernetes.config import kube_config

from citeflow.cli import main
from citeflow.kubernetes import launch as train
from citeflow.kubernetes import logs, watcher
from citeflow.kubernetes.identity import RUN_ID

PLURALS = {"pytorchjob": "pytorchjobs", "trainjob": "trainjobs"}
POD = ("CITEFLOW_POD_NAME", "CITEFLOW_POD_UID", "KFP_POD_NAME", "KFP_POD_UID")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every command starts in an empty folder, in no pod, and waits only for moments."""
    monkeypatch.chdir(tmp_path)
    for name in (*POD, "CITEFLOW_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(watcher, "POLL_S", 0.02)
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 0.1)
    monkeypatch.setattr(logs, "AGAIN_S", 0.02)


@pytest.fixture
def kubeconfig(kube, tmp_path, monkeypatch):
    """The kubeconfig names the cluster in memory; the client looks up where it lies once, when it is imported."""
    path = kube.write_kubeconfig(tmp_path / "kubeconfig", NAMESPACE)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@pytest.fixture
def argv(prepared):
    """The arguments of a launch whose pods would see the folder of the prepared graph."""

    def make(launcher="pytorchjob", *more, job=""):
        volumes = f"volumes: {{citeflow-data: {prepared.data_root}}}"
        words = [
            "launch",
            str(prepared.graph),
            "--data-root",
            str(prepared.data_root),
            "--run-name",
            f"cmd-{launcher}",
        ]
        words += [
            "--launcher",
            launcher,
            "--namespace",
            NAMESPACE,
            "--job",
            f"{{{volumes}{job}}}",
            *more,
        ]
        return [*words, *(word for setting in prepared.settings for word in ("--set", setting))]

    return make


@pytest.fixture
def printed(capsys):
    """What a command prints, as YAML."""

    def run(words):
        assert main([*words, "--dry-run"]) == 0
        told = capsys.readouterr()
        assert told.err == ""
        return yaml.safe_load(told.out)

    return run


def sent(kube, launcher):
    bodies = [
        seen.body
        for seen in kube.requests
        if (seen.verb, seen.resource) == ("create", PLURALS[launcher])
    ]
    assert len(bodies) == 1
    return bodies[0]


@pytest.mark.parametrize("launcher", PLURALS)
@pytest.mark.parametrize("in_a_step", [False, True])
def test_what_is_printed_is_what_is_sent(
    kube, kubeconfig, argv, printed, capsys, monkeypatch, launcher, in_a_step
):
    if in_a_step:
        step = owner(kube, "citation-x7k2q-2104")
        monkeypatch.setenv("KFP_POD_NAME", step.name)
        monkeypatch.setenv("KFP_POD_UID", step.uid)
    words = argv(
        launcher,
        "--run-id",
        "8f14e45f-ceea",
        "--workers",
        "3",
        job=", cpu: 500m, queue: '', restarts: 0",
    )
    job = printed(words)
    assert kube.requests == []
    with TrainingOperator(kube, script=lambda pod: ["nothing to learn", 0]):
        assert main(words) == 75
    assert sent(kube, launcher) == job
    assert ("ownerReferences" in job["metadata"]) == in_a_step
    told = capsys.readouterr()
    assert told.out == ""
    assert "| nothing to learn" in told.err
    assert told.err.splitlines()[-2].startswith("error: ")


@pytest.mark.parametrize("launcher", PLURALS)
def test_a_dry_run_needs_neither_cluster_nor_graph(argv, printed, monkeypatch, launcher):
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    monkeypatch.setattr(socket, "socket", None)
    words = argv(launcher)
    words[1] = "/mnt/citeflow/prepared/not-made-yet"
    job = printed(words)
    assert job["kind"].lower() == launcher
    assert printed(words) == job


def test_what_is_printed_without_a_namespace_is_what_is_sent(kube, kubeconfig, argv, printed):
    words = argv()
    at = words.index("--namespace")
    job = printed(words[:at] + words[at + 2 :])
    assert job["metadata"]["namespace"] == NAMESPACE
    assert job == printed(words)
    with TrainingOperator(kube, script=lambda pod: [0]):
        assert main(words[:at] + words[at + 2 :]) == 75
    assert sent(kube, "pytorchjob") == job


def test_a_job_with_other_settings_of_the_training_is_another_job(
    kube, kubeconfig, argv, printed, capsys
):
    job, other = printed(argv()), printed(argv("pytorchjob", "--preset", "seed"))
    assert job["metadata"]["name"] == other["metadata"]["name"]
    kube.put(other)
    assert main(argv()) == 64
    assert "of the same run with other settings" in capsys.readouterr().err


def test_the_settings_of_a_job_come_from_options_and_text(argv, printed):
    job = printed(argv("trainjob", "--workers", "3", "--run-id", "r1", job=", cpu: 4, gpus: 2"))
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 2)
    assert trainer["resourcesPerNode"]["limits"]["cpu"] == "4"
    assert job["metadata"]["labels"][RUN_ID] == "r1"
    assert (
        printed(argv("trainjob", "--workers", "3", job=", workers: 5"))["spec"]["trainer"][
            "numNodes"
        ]
        == 5
    )


def test_the_settings_of_a_job_may_be_a_file(argv, printed, tmp_path, prepared):
    (tmp_path / "job.yaml").write_text(f"cpu: 3\nvolumes:\n  citeflow-data: {prepared.data_root}\n")
    words = argv()
    words[words.index("--job") + 1] = "job.yaml"
    worker = printed(words)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"][
        "containers"
    ][0]
    assert worker["resources"]["requests"]["cpu"] == "3"


def test_a_path_that_is_relative_is_where_the_pods_look(printed, tmp_path):
    words = [
        "launch",
        "x",
        "--run-name",
        "a",
        "--data-root",
        "data",
        "--job",
        f"{{volumes: {{c: {tmp_path}}}}}",
    ]
    container = printed(words)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"][
        "containers"
    ][0]
    assert container["args"][-1] == f"{tmp_path}/data/runs/a/job.json"


BASE = ["launch", "g", "--data-root", "/mnt/citeflow"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ([*BASE], 64, "--run-name"),
        (["launch", "--run-name", "a"], 64, "graph"),
        ([*BASE, "--run-name", "My Run"], 64, "run name: My Run"),
        ([*BASE, "--run-name", "a", "--launcher", "local"], 64, "--launcher"),
        ([*BASE, "--run-name", "a", "--launcher", "PyTorchJob"], 64, "--launcher"),
        ([*BASE, "--run-name", "a", "--workers", "0"], 64, "at least 1"),
        ([*BASE, "--run-name", "a", "--job", "{worker: 2}"], 64, "did you mean workers"),
        ([*BASE, "--run-name", "a", "--job", "{cpu: lots}"], 64, "job.cpu: lots"),
        ([*BASE, "--run-name", "a", "--job", "{cpu: 4"], 64, "job is not YAML"),
        ([*BASE, "--run-name", "a", "--job", "cpu: lots"], 64, "job.cpu: lots"),
        ([*BASE, "--run-name", "a", "--job", "none.yaml"], 66, "no such file: none.yaml"),
        ([*BASE, "--run-name", "a", "--job", "."], 66, "no such file: ."),
        ([*BASE, "--run-name", "a", "--run-id", "a b"], 64, "run id: a b"),
        ([*BASE, "--run-name", "a", "--namespace", "Kube Flow"], 64, "namespace: Kube Flow"),
        ([*BASE, "--run-name", "a", "--set", "train.epoch=3"], 64, "did you mean train.epochs"),
        ([*BASE, "--run-name", "a", "--preset", "best"], 64, "best"),
        (
            ["launch", "g", "--data-root", "/home/me", "--run-name", "a"],
            64,
            "do not see the folder: /home/me/runs/a",
        ),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_sent(
    kube, kubeconfig, capsys, words, code, told
):
    assert main([*words, "--dry-run"]) == code
    error = capsys.readouterr()
    assert error.out == ""
    assert told in error.err
    assert error.err.startswith("error: ")
    assert kube.requests == []


def test_a_graph_that_is_not_there_is_told_before_anything_is_sent(kube, kubeconfig, argv, capsys):
    words = argv()
    words[1] = "/nowhere"
    assert main(words) == 66
    assert "/nowhere" in capsys.readouterr().err
    assert kube.requests == []


def test_a_cluster_that_is_not_there_is_told(argv, capsys, monkeypatch):
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", "/nowhere")
    assert main(argv()) == 64
    assert "error: no cluster to talk to" in capsys.readouterr().err


def test_the_help_lists_every_setting_of_a_job(capsys):
    with pytest.raises(SystemExit):
        main(["launch", "--help"])
    told = capsys.readouterr().out
    assert all(
        f"\n{name}: " in told
        for name in ("workers", "image", "cpu", "memory", "deadline_hours", "runtime")
    )


@pytest.mark.parametrize(("namespace", "owned"), [("another", False), (NAMESPACE, True)])
def test_a_job_in_another_namespace_has_no_owner(argv, printed, monkeypatch, namespace, owned):
    monkeypatch.setenv("KFP_POD_NAME", "citation-x")
    monkeypatch.setenv("KFP_POD_UID", "u")
    monkeypatch.setattr(train, "own_namespace", lambda: NAMESPACE)
    words = argv()
    words[words.index("--namespace") + 1] = namespace
    assert ("ownerReferences" in printed(words)["metadata"]) == owned
