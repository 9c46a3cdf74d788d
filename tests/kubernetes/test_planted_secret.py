"""A secret that is planted wherever one may lie is found nowhere that others read."""

import json
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from clusters import NAMESPACE, owner
from fakes.kfp_server import serving, speed_up
from fakes.operator import TrainingOperator
from kubernetes.config import kube_config

from citeflow import stages
from citeflow.cli.main import main
from citeflow.data import download
from citeflow.kubeflow import compile
from citeflow.kubernetes import client as kube_client
from citeflow.kubernetes import logs, watcher

pytestmark = pytest.mark.fault("F36")

SECRET = "hunter2-planted"
VARIABLES = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "MINIO_SECRET_KEY", "KF_PIPELINES_TOKEN",
    "HF_TOKEN", "DATABASE_URL", "DOCKER_AUTH_CONFIG", "PIP_INDEX_URL", "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
)  # fmt: skip
FILES = ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE", "DOCKER_CONFIG", "NETRC")
BUG = """
import sys
from citeflow.cli.main import main
from citeflow.data import download
download._receive = lambda *args, **options: {}["no such key"]
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def planted(kube, tmp_path, monkeypatch):
    """Environment, files that it names, and kubeconfig hold secrets."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    for name in FILES:
        (tmp_path / name).write_text(SECRET)
        monkeypatch.setenv(name, str(tmp_path / name))
    path = kube.write_kubeconfig(tmp_path / "kubeconfig", NAMESPACE)
    path.write_text(path.read_text().replace("fake-token", SECRET))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    assert SECRET in str(kube_client.connect().api.configuration.api_key)
    monkeypatch.setattr(watcher, "POLL_S", 0.02)
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 0.1)
    monkeypatch.setattr(logs, "REOPEN_S", 0.02)
    speed_up(monkeypatch, tmp_path / "home")


@pytest.fixture
def url(prepared, tmp_path):
    """URLs of a dataset with a password; `requests` has what was asked for."""
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            requests.append(self.path)

    shutil.make_archive(str(tmp_path / "served" / "papers"), "zip", prepared.data_root / "papers")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        yield SimpleNamespace(
            good=f"http://{host}/papers.zip?token={SECRET}",
            gone=f"http://{host}/none.zip?token={SECRET}",
            password=f"http://me:{SECRET}@{host}/papers.zip",
            requests=requests,
        )
        server.shutdown()
        thread.join(5)


def check_clean(*texts):
    """Fail if there is nothing to search, or the secret is found."""
    assert any(texts)
    assert [text for text in texts if SECRET in text] == []


def written(folder):
    """Return names and contents of all files of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [*map(str, files), *(path.read_bytes().decode(errors="replace") for path in files)]


def run_download_stage(tmp_path, dataset, launcher):
    raw = SimpleNamespace(path=str(tmp_path / "raw-artifact"), metadata={})
    job = f"{{volumes: {{citeflow-data: {tmp_path}}}}}"
    form = [dataset, "default", "", "from-settings", 0.0, 0.0, 2, "", "", "6b2c1e9e-1111", "A run"]
    form += [launcher, job]
    return stages.download(*form, data_root=str(tmp_path / "volume"), raw=raw), raw


def test_launched_job_holds_no_secret(kube, launcher, url, prepared, tmp_path, capfd, monkeypatch):
    settled, raw = run_download_stage(tmp_path, url.good, launcher.name)
    assert any(SECRET in path for path in url.requests)
    step = owner(kube, "citation-x7k2q-2104")
    monkeypatch.setenv("KFP_POD_NAME", step.name)
    monkeypatch.setenv("KFP_POD_UID", step.uid)
    root = str(prepared.data_root)
    words = ["launch", str(prepared.graph), "--run-name", settled.run, "--data-root", root]
    words += ["--launcher", launcher.name, "--job", f"{{volumes: {{citeflow-data: {root}}}}}"]
    assert main([*words, "--dry-run"]) == 0
    with TrainingOperator(kube, script=lambda pod: ["starts", 0]):
        kube.fail(1, status=503, message="too busy")
        assert main(words) == 75
    requests = [[seen.path, seen.query, seen.body] for seen in kube.requests]
    objects = [kube.list(plural) for plural in ("pods", "services", launcher.plural)]
    assert re.search(r"citeflow\.training\.(torchrun|ray_driver)", json.dumps([objects, requests]))
    out, err = capfd.readouterr()
    assert "launch created" in err
    check_clean(out, err, json.dumps([objects, requests]), str(settled), json.dumps(raw.metadata))
    run_files = written(prepared.data_root / "runs" / settled.run)
    check_clean(*written(tmp_path / "volume"), *run_files, (tmp_path / "raw-artifact").read_text())


@pytest.mark.parametrize("kind", ["gone", "password"])
def test_download_errors_hold_no_secret(kind, url, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    with pytest.raises(SystemExit):
        run_download_stage(tmp_path, getattr(url, kind), "local")
    out, err = capfd.readouterr()
    assert "error: " in err
    assert "127.0.0.1" in err
    check_clean(out, err)


def test_traceback_of_a_bug_holds_no_secret(url, tmp_path):
    words = ["download", url.good, "--data-root", str(tmp_path / "volume")]
    command = [sys.executable, "-c", BUG, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "KeyError: 'no such key'" in done.stderr
    check_clean(done.stdout, done.stderr)


@pytest.mark.parametrize("command", ["launch", "reap"])
@pytest.mark.parametrize("status", [401, 403, 422])
def test_refusals_hold_no_secret(command, status, kube, prepared, capfd):
    kube.fail(status=status, message="no")
    root = str(prepared.data_root)
    words = ["launch", str(prepared.graph), "--run-name", "a", "--data-root", root]
    words += ["--job", f"{{volumes: {{citeflow-data: {root}}}}}"]
    assert main(["reap"] if command == "reap" else words) == 64
    out, err = capfd.readouterr()
    assert "error: the cluster refuses: no" in err
    check_clean(out, err)


def test_submission_holds_no_secret(tmp_path, capfd):
    (tmp_path / "token").write_text(SECRET)
    with serving(token=SECRET) as kfp:
        words = ["submit", "--host", kfp.url, "--token-file", "token", "--job", "{cpu: 2}"]
        assert main([*words, "--dry-run"]) == 0
        assert main(words) == 0
        kfp.fail("POST", "/runs", 500, times=9)
        assert main(words) != 0
        state = kfp.state
    assert state.seen[-1].headers["authorization"] == f"Bearer {SECRET}"
    sent = [f"{seen.path} {seen.query} {seen.body}" for seen in state.seen]
    out, err = capfd.readouterr()
    assert state.uploaded
    check_clean(out, err, *state.uploaded, str(state.runs), *sent)


def test_doctor_holds_no_secret(tmp_path, capfd):
    (tmp_path / "token").write_text(SECRET)
    with serving(token=SECRET) as kfp:
        for options in ([], ["--json"]):
            main(["doctor", "--host", kfp.url, "--token-file", "token", *options])
    out, err = capfd.readouterr()
    assert "Kubeflow Pipelines: answers" in out
    check_clean(out, err)


def test_publish_to_mlflow_holds_no_secret(trained, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:{SECRET}@127.0.0.1:9/?key={SECRET}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    words = ["publish", str(trained.report), "--model", str(trained.model)]
    words += ["--out", str(tmp_path / "out"), "--data-root", str(trained.data_root)]
    assert main(words) != 0
    out, err = capfd.readouterr()
    assert "MLflow" in err
    check_clean(out, err, *written(tmp_path / "out"))


def test_compiled_files_hold_no_secret(checkout, tmp_path):
    ignore = shutil.ignore_patterns("__pycache__", "*.yaml")
    for folder in ("components", "pipelines/citation"):
        shutil.copytree(checkout / folder, tmp_path / folder, ignore=ignore)
    targets = compile.write(tmp_path)
    assert tmp_path / "pipelines/citation/pipeline.yaml" in targets
    check_clean(*(target.read_text() for target in targets))


@pytest.mark.fault("F36", nightly=True)
def test_whole_run_holds_no_secret(url, tmp_path, capfd):
    words = ["run", "--dataset", url.good, "--data-root", str(tmp_path / "volume")]
    words += ["--out", str(tmp_path / "out"), "--set", "train.epochs=1"]
    assert main([*words, "--set", "model.hidden_channels=16"]) == 0
    files = [*written(tmp_path / "volume"), *written(tmp_path / "out")]
    assert any("tfevents" in text for text in files)
    check_clean(*capfd.readouterr(), *files)
