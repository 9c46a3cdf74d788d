"""The parts of the end-to-end trial (tests/e2e) that can go wrong by themselves, on a cluster in memory."""

import contextlib
import dataclasses
import json
import struct
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import psutil
import pytest
import yaml
from e2e import artifacts, options, steps
from e2e.conftest import Progress
from e2e.helper import CLEAN, FACTS, Helper
from e2e.waiting import until
from fakes.kfp_server import serving
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator
from kubernetes import client as k8s
from manifests.pod_security import violations

from citeflow import config, files
from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubeflow import client as kfpserver
from citeflow.kubeflow import local_runner
from citeflow.kubernetes import job_objects
from citeflow.kubernetes import job_spec as train_spec
from citeflow.kubernetes.client import Api
from citeflow.kubernetes.identity import JobIdentity, Owner
from citeflow.kubernetes.job_spec import JobSpec

NAMESPACE, RUN = "kubeflow", "6b2c1e9e-1111-2222-3333-444455556666"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("cluster.waiting.POLL_S", 0.01)


@pytest.fixture
def kube():
    with KubeApi() as kube:
        yield kube


@pytest.fixture
def api(kube):
    api = Api(client=kube.client(retries=False), namespace=NAMESPACE, patience_s=0.2)
    yield api
    api.client.close()
    api.client.rest_client.pool_manager.clear()


@pytest.fixture
def trial(api):
    """A trial whose server knows one run, that goes on."""
    run = SimpleNamespace(state="RUNNING", run_details=None)
    server = SimpleNamespace(find_run=lambda run_id: run, run=run)
    return new_trial(api, server)


def new_trial(api, server, **given):
    wanted = options.Options(**{"minutes": 0.02, **given})
    helper = Helper(api=api, image=wanted.step_image, tag="abc123", timeout_s=2.0)
    return steps.Trial(options=wanted, api=api, server=server, tag="abc123", seed=7, helper=helper)


def create_job(api, owner=None):
    place = JobIdentity(
        namespace=NAMESPACE, run_id=RUN, run_name="e2e-abc123-x", job_file="/job.json", owner=owner
    )
    job = job_objects.render("PyTorchJob", JobSpec(), place)
    assert api.create(job)
    return api.get("PyTorchJob", job["metadata"]["name"])


# What the environment says


def test_nobody_is_asked_about_a_cluster_that_nobody_named():
    assert options.read({"HOME": "/root", "KUBECONFIG": "/there"}) is None
    assert options.read({"CITEFLOW_E2E": "0", "CITEFLOW_E2E_HOST": "http://there"}) is None


def test_options_come_from_the_environment():
    found = options.read(
        {"CITEFLOW_E2E_MINUTES": "3", "CITEFLOW_E2E_KEEP": "1", "CITEFLOW_E2E_CPU": ""}
    )
    assert (found.minutes, found.keep, found.cpu) == (3.0, True, "500m")


@pytest.mark.parametrize(
    "wrong",
    [
        {"CITEFLOW_E2E_HOTS": "x"},
        {"CITEFLOW_E2E_MINUTES": "x"},
        {"CITEFLOW_E2E_STEP_IMAGE": "step:latest"},
    ],
)
def test_options_that_do_not_fit_are_errors(wrong):
    with pytest.raises(ValueError):  # noqa: PT011
        options.read(wrong)


def test_every_option_is_documented(checkout):
    text = (checkout / "docs" / "e2e.md").read_text()
    for name in options.Options.__dataclass_fields__:
        assert f"`{name.upper()}`" in text


# Order


def test_a_part_is_skipped_with_the_reason_when_one_that_it_needs_failed(capsys):
    capture = SimpleNamespace(global_and_fixture_disabled=contextlib.nullcontext)
    progress = Progress(
        SimpleNamespace(pluginmanager=SimpleNamespace(getplugin=lambda name: capture))
    )
    with pytest.raises(AssertionError), progress.part("upload"):
        raise AssertionError
    with (
        pytest.raises(pytest.skip.Exception, match=r"needs upload \(failed\)"),
        progress.part("run", "upload"),
    ):
        pytest.fail("was run")
    with (
        pytest.raises(pytest.skip.Exception, match=r"needs run \(skipped\)"),
        progress.part("results", "run"),
    ):
        pytest.fail("was run")
    with progress.part("other"):
        pass
    assert progress.results == {
        "upload": "failed",
        "run": "skipped",
        "results": "skipped",
        "other": "ok",
    }
    told = capsys.readouterr().out
    assert "=== upload: failed in 0 s" in told
    assert "=== other: ok in 0 s" in told


def test_a_wait_ends_and_says_what_there_was_instead():
    assert until("it", iter([0, 0, 3]).__next__, timeout_s=1) == 3
    with pytest.raises(AssertionError, match="waited 0 s for it; there is another"):
        until("it", lambda: False, timeout_s=0.05, state=lambda: "another")


# A pod that reads the volume


def answering(kube, phase, text="", waiting=""):
    """Let every pod that is created end, or wait, in this way at once."""

    def on_request(number, request, moment):
        if (request.verb, request.resource, moment) == ("create", "pods", "after"):
            name = request.body["metadata"]["name"]
            state = {"waiting": {"reason": waiting}} if waiting else {"terminated": {"exitCode": 0}}
            entry = {
                "name": "main",
                "image": "i",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": state,
            }
            status = {"phase": phase, "containerStatuses": [entry]}
            if text:
                kube.write_log(NAMESPACE, name, text, "main")
            kube.patch("pods", NAMESPACE, name, {"status": status})

    kube.on_request(on_request)


def test_the_answer_of_a_helper_is_its_log_and_the_pod_is_removed(kube, trial):
    answering(kube, "Succeeded", '{"model": "abc"}')
    assert trial.helper.ask("print(1)", "x") == {"model": "abc"}
    (made,) = [
        seen.body for seen in kube.requests if (seen.verb, seen.resource) == ("create", "pods")
    ]
    assert kube.list("pods") == []
    assert made["metadata"]["labels"]["citeflow.org/e2e"] == "abc123"
    container = made["spec"]["containers"][0]
    assert container["command"] == ["python3", "-c", "print(1)", "x"]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert violations(made["spec"]) == []


@pytest.mark.parametrize(
    ("phase", "waiting", "told"),
    [
        ("Failed", "", "failed:\nTraceback"),
        ("Pending", "ErrImageNeverPull", "ErrImageNeverPull; is citeflow-step"),
        (
            "Pending",
            "ContainerCreating",
            "waited 2 s for pod citeflow-e2e-abc123-0; there is Pending ContainerCreating",
        ),
    ],
)
def test_a_helper_that_gives_no_answer_is_told_and_removed(kube, trial, phase, waiting, told):
    answering(kube, phase, "Traceback", waiting)
    with pytest.raises(AssertionError, match=told):
        trial.helper.ask("1/0")
    assert kube.list("pods") == []


def script(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def volume(root, name, graph):
    run, logs = root / "runs" / name, root / "logs" / name
    files.write_text(run / "model" / "model.safetensors", "weights")
    files.write_json(run / "job.json", {"graph": str(graph)})
    files.write_json(run / "published" / "report.json", {"test": {"mrr": 0.5}})
    files.write_text(run / "published" / "report.html", "<p>")
    files.write_text(logs / "events.out.tfevents.1", "events")


def test_what_a_run_left_is_read_from_the_volume(tmp_path):
    volume(tmp_path, "one", "/graph")
    found = script(FACTS, tmp_path, "one")
    assert found["model"] == files.sha256_of_file(
        tmp_path / "runs" / "one" / "model" / "model.safetensors"
    )
    assert found["report"] == {"test": {"mrr": 0.5}}
    assert found["events"] == {"events.out.tfevents.1": 6}
    assert found["page"]
    nothing = {"model": None, "job": None, "report": None, "page": False, "events": {}}
    assert script(FACTS, tmp_path, "two") == nothing


def test_cleaning_takes_what_the_runs_alone_had(tmp_path):
    for name in ("mine", "other"):
        files.write_json(tmp_path / "raw" / name / "manifest.json", {"sha256": f"digest of {name}"})
        inputs = {"RawDataset": f"digest of {name}"}
        files.write_json(tmp_path / "prepared" / name / "manifest.json", {"inputs": inputs})
        volume(tmp_path, name, tmp_path / "prepared" / name)
    volume(tmp_path, "elsewhere", tmp_path)
    assert script(CLEAN, tmp_path, "mine", "elsewhere", "never-began") == []
    assert [
        sorted(p.name for p in (tmp_path / part).iterdir())
        for part in ("raw", "prepared", "runs", "logs")
    ] == [["other"]] * 4


# Artifacts


def step_pod(step, name, values):
    launch = [
        "/kfp-launcher/launch",
        "--run_id",
        RUN,
        "--executor_input",
        json.dumps(values),
        "--",
        "python3",
    ]
    labels = {
        "pipeline/runid": RUN,
        "app.kubernetes.io/part-of": "citeflow",
        "app.kubernetes.io/component": step,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "containers": [
                {"name": "wait", "image": "i"},
                {"name": "main", "image": "i", "command": launch},
            ]
        },
    }


def outputs(**uris):
    return {
        "outputs": {
            "artifacts": {name: {"artifacts": [{"uri": uri}]} for name, uri in uris.items()}
        }
    }


def test_the_artifacts_of_a_step_are_those_of_its_last_attempt(api):
    made = [
        ("train", "05", outputs(model="minio://2")),
        ("train", "00", outputs(model="minio://1")),
        ("publish", "09", outputs(page="minio://p", summary="minio://s")),
    ]
    pods = []
    for step, minute, values in made:
        pod = step_pod(step, f"{step}-{minute}", values)
        pod["metadata"]["creationTimestamp"] = f"2026-01-01T00:{minute}:00Z"
        pods.append(api.client.deserialize(SimpleNamespace(data=json.dumps(pod)), "V1Pod"))
    wanted = {
        "train": {"model": "minio://2"},
        "publish": {"page": "minio://p", "summary": "minio://s"},
    }
    assert artifacts.outputs_of(pods) == wanted


def test_artifacts_that_are_missing_are_named(kube, trial):
    wanted = artifacts.expected(local_runner.compiled().read_text())
    assert wanted["evaluate"] == {"report", "metrics", "classification"}
    for step, names in wanted.items():
        kube.put(
            step_pod(step, step, outputs(**{name: f"minio://{step}/{name}" for name in names}))
        )
    assert steps.check_artifacts(trial, RUN)["train"]["model"] == "minio://train/model"
    kube.remove("pods", NAMESPACE, "download")
    with pytest.raises(AssertionError, match=r"\{'download': \{'raw'\}\}"):
        steps.check_artifacts(trial, RUN)


def field(number, value):
    return (
        bytes(
            [
                number << 3 | 2,
                *(
                    [len(value) & 0x7F | 0x80, len(value) >> 7]
                    if len(value) > 127
                    else [len(value)]
                ),
            ]
        )
        + value
    )


def metadata_answer(uri, **properties):
    """As ML Metadata answers through its proxy."""
    entries = b""
    for name, value in properties.items():
        kinds = {
            float: lambda v: b"\x11" + struct.pack("<d", v),
            int: lambda v: b"\x08" + bytes([v]),
        }
        encoded = kinds.get(type(value), lambda v: field(3, v.encode()))(value)
        entries += field(5, field(1, name.encode()) + field(2, encoded))
    message = field(1, b"\x08\x07" + field(3, uri.encode()) + entries)
    trailers = b"grpc-status:0\r\n"
    return (
        struct.pack(">BI", 0, len(message))
        + message
        + struct.pack(">BI", 0x80, len(trailers))
        + trailers
    )


def test_figures_are_read_from_ml_metadata_through_the_api_server():
    uri, seen = "minio://mlpipeline/" + "x" * 200, []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Content-Type"], body))
            content = metadata_answer(uri, mrr=0.25, epochs=3, display_name="metrics")
            self.send_response_only(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        client = k8s.ApiClient(
            k8s.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
        )
        found = artifacts.figures(Api(client=client, namespace="alice"), [uri], namespace=NAMESPACE)
        client.rest_client.pool_manager.clear()
        thread.join(10)
    assert found == {uri: {"mrr": 0.25, "epochs": 3, "display_name": "metrics"}}
    path = "/api/v1/namespaces/kubeflow/services/metadata-envoy-service:9090/proxy/"
    request = field(2, uri.encode())
    wanted = struct.pack(">BI", 0, len(request)) + request
    assert seen == [
        (
            path + "ml_metadata.MetadataStoreService/GetArtifactsByURI",
            "application/grpc-web+proto",
            wanted,
        )
    ]


# Runs and jobs


def test_what_is_uploaded_and_started_fits_the_pipeline(monkeypatch, tmp_path, api):
    from kfp import client

    monkeypatch.setattr(client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "context.json"))
    with serving() as server:
        given = {
            "step_image": "there/step:1-python3.13",
            "train_image": "there/train:1",
            "cpu": "250m",
        }
        trial = new_trial(api, kfpserver.connect(host=server.url), **given)
        made = steps.upload(trial)
        run_id = steps.start(trial, "plain")
        (run,) = server.state.runs
        (text,) = server.state.uploaded
    values = run.runtime_config.parameters
    assert (trial.made["version_id"], trial.runs) == (
        made["version_id"],
        {"e2e-abc123-plain": run_id},
    )
    assert (values["launcher"], values["run_name"]) == ("pytorchjob", "e2e-abc123-plain")
    assert config.load(text=values["settings"]).synthetic.seed == 7
    spec = train_spec.from_yaml(values["job"], workers=2)
    assert (spec.cpu, spec.memory, spec.deadline_hours) == ("250m", "1Gi", 1.0)
    images = [
        each["container"]["image"]
        for each in next(yaml.safe_load_all(text))["deploymentSpec"]["executors"].values()
    ]
    assert set(images) == {"there/step:1-python3.13"}
    assert "there/train:1" in text
    assert run.service_account == "pipeline-runner"


@pytest.fixture
def operator(kube):
    with TrainingOperator(kube, restart_delay=0.02) as operator:
        yield operator


def running(kube, operator, api):
    """A job whose two workers run; returns it and their names."""
    job = create_job(api)
    name = job["metadata"]["name"]
    names = [f"{name}-worker-{index}" for index in range(2)]
    scheduled = lambda: [p for p in kube.list("pods") if p["spec"].get("nodeName")]  # noqa: E731
    until("pods", lambda: len(scheduled()) == 2, timeout_s=5)
    for pod in names:
        operator.start(pod)
    return job, names


def test_workers_are_seen_to_train(kube, operator, trial, api):
    job, (_, second) = running(kube, operator, api)
    with pytest.raises(
        AssertionError, match="waited 1 s for workers that train; there is 1 jobs; 2 running"
    ):
        steps.training(trial, RUN)
    operator.write(second, "12:00:00 train[0] evaluated step=3")
    assert steps.training(trial, RUN)["metadata"]["uid"] == job["metadata"]["uid"]


def test_a_run_that_ends_before_its_training_is_seen_is_told(kube, trial):
    trial.server.run.state = "FAILED"
    with pytest.raises(AssertionError, match="the run ended as FAILED before"):
        steps.training(trial, RUN)


def test_a_worker_that_is_deleted_is_replaced_by_another_pod(kube, operator, trial, api):
    job, (_, victim) = running(kube, operator, api)
    before = kube.get("pods", NAMESPACE, victim)["metadata"]["uid"]
    trial.options = dataclasses.replace(trial.options, minutes=1.0)
    old, new = steps.delete_worker(trial, job)
    assert (old, new) == (before, kube.get("pods", NAMESPACE, victim)["metadata"]["uid"])
    assert old != new


def test_a_worker_of_a_job_that_has_ended_is_not_deleted(kube, operator, trial, api):
    job, (first, _) = running(kube, operator, api)
    operator.finish(first, 0)
    until(
        "its end", lambda: steps.end_of(api.get("PyTorchJob", job["metadata"]["name"])), timeout_s=5
    )
    with pytest.raises(AssertionError, match="the job ended before"):
        steps.delete_worker(trial, job)


def test_a_deletion_that_brings_no_other_pod_is_told(kube, operator, trial, api):
    job, (_, victim) = running(kube, operator, api)
    operator.stuck.add(victim)
    with pytest.raises(AssertionError, match=f"for another {victim}"):
        steps.delete_worker(trial, job)


def test_a_job_that_stays_is_an_orphan(kube, operator, trial, api):
    job, _ = running(kube, operator, api)
    with pytest.raises(AssertionError, match="the job still"):
        steps.gone(trial, job, within_s=0.1)
    api.delete("PyTorchJob", job["metadata"]["name"])
    of_job, of_pods = steps.gone(trial, job)
    assert 0 <= of_job <= of_pods < 10


def test_a_repeated_step_has_taken_over_when_its_pod_owns_the_same_job(kube, trial, api):
    kube.put(step_pod("train", "first", {}))
    (first,) = steps.step_pods(trial, RUN, "train")
    job = create_job(api, Owner(name="first", uid=first.metadata.uid))
    with pytest.raises(AssertionError, match="waited 1 s for another attempt"):
        steps.repeated(trial, RUN, first, job)
    second = kube.put(step_pod("train", "second", {}))
    owners = [
        *job["metadata"]["ownerReferences"],
        job_objects.owner_reference(Owner(name="s", uid=second["metadata"]["uid"])),
    ]
    kube.patch(
        "pytorchjobs", NAMESPACE, job["metadata"]["name"], {"metadata": {"ownerReferences": owners}}
    )
    assert steps.repeated(trial, RUN, first, job)["metadata"]["uid"] == job["metadata"]["uid"]
    api.delete("PyTorchJob", job["metadata"]["name"])
    create_job(api)
    with pytest.raises(AssertionError, match="not the one job"):
        steps.repeated(trial, RUN, first, job)


def test_the_lines_of_workers_are_counted_in_a_launcher_s_log():
    text = "\n".join(
        [
            "12:00:00 launch created kind=PyTorchJob name=x",
            "worker-0 | 12:00:01 train[0] starting step=0",
            "worker-1 | W0101 torch/distributed/run.py",
            "worker-0 | 12:00:09 train[0] resuming step=12",
            "12:00:10 launch pods are=2 running | nothing",
        ]
    )
    assert steps.prefixed(text) == {"worker-0": 2, "worker-1": 1}
    assert steps.starts(text) == 2


@pytest.mark.parametrize("report", [None, {"test": {"mrr": 0.0}}, {"test": {"mrr": float("nan")}}])
def test_a_report_without_a_score_is_none(report):
    with pytest.raises(AssertionError):
        steps.check_report(report)


def test_what_can_not_be_removed_is_told_and_ends_nothing(kube, api, trial, monkeypatch):
    deleted = []

    def refuse(*_):
        raise RuntimeError("not that")

    named = lambda what: lambda *ids: deleted.append((what, *ids))  # noqa: E731
    monkeypatch.setattr("cluster.steps.kfpapi.ask", lambda call, *arguments: call(*arguments))
    versions = SimpleNamespace(pipeline_versions=None)
    trial.server.client = SimpleNamespace(
        runs=SimpleNamespace(run_service_delete_run=refuse),
        pipelines=SimpleNamespace(
            pipeline_service_delete_pipeline_version=named("version"),
            pipeline_service_list_pipeline_versions=lambda pipeline_id: versions,
            pipeline_service_delete_pipeline=named("pipeline"),
        ),
    )
    trial.server.find_experiment = lambda name: None
    trial.server.run.state = "SUCCEEDED"
    trial.runs, trial.made = {"e2e-abc123-plain": RUN}, {"pipeline_id": "p", "version_id": "v"}
    create_job(api)
    answering(kube, "Succeeded", "[]")
    assert steps.clean(trial) == [f"run {RUN}: not that"]
    assert kube.list("pytorchjobs") == []
    assert deleted == [("version", "p", "v"), ("pipeline", "p")]


def test_what_is_killed_in_a_step_is_its_python_and_nothing_else(tmp_path):
    (tmp_path / "kfp" / "dsl").mkdir(parents=True)
    for folder in (tmp_path / "kfp", tmp_path / "kfp" / "dsl"):
        (folder / "__init__.py").write_text("")
    (tmp_path / "kfp" / "dsl" / "executor_main.py").write_text(
        "import time; print('up', flush=True); time.sleep(60)"
    )
    shell = f"{sys.executable} -m kfp.dsl.executor_main; echo ended with $?"
    with subprocess.Popen(
        ["sh", "-c", shell], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "up\n"
        (child,) = psutil.Process(process.pid).children()
        pid = child.pid
        code = steps.KILL.replace('glob("[0-9]*")', f'glob("{pid}")')
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
        )
        assert done.stdout == f"killed {pid}\n"
        assert process.stdout.read() == "ended with 137\n"


def test_a_cluster_that_is_not_there_is_told_apart_from_one_that_refuses(
    kube, tmp_path, monkeypatch
):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="no cluster to talk to"):
        steps.reach(options.Options())
    monkeypatch.setenv("KUBECONFIG", str(kube.write_kubeconfig(tmp_path / "config")))
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "config")
    )
    refused = kube.fail(1, status=403, resource="pods")
    with pytest.raises(ConfigError, match="the cluster refuses"):
        steps.reach(options.Options())
    assert refused.fired
    steps.reach(options.Options()).client.rest_client.pool_manager.clear()
