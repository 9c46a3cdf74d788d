"""A secret that is planted wherever one may lie is found nowhere that others read."""

import json
import shutil
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml
from clusters import NAMESPACE, owner
from fakes.operator import TrainingOperator
from kubernetes.config import kube_config

from citeflow import compilation, steps
from citeflow.cli import main
from citeflow.cluster import launch, logs
from citeflow.cluster.api import connect
from citeflow.data import fetch

SECRET = "hunter2-planted"
VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MINIO_SECRET_KEY",
    "KF_PIPELINES_TOKEN",
    "KFP_TOKEN",
    "HF_TOKEN",
    "DATABASE_URL",
)


@pytest.fixture(autouse=True)
def planted(tmp_path, monkeypatch):
    """The environment holds secrets, and names files that do."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    for name in ("KF_PIPELINES_SA_TOKEN_PATH", "GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"):
        (tmp_path / name).write_text(SECRET)
        monkeypatch.setenv(name, str(tmp_path / name))
    for part, number in ((launch, "POLL_S"), (launch, "SEEN_LATE_S"), (logs, "AGAIN_S")):
        monkeypatch.setattr(part, number, 0.05)


@pytest.fixture
def kubeconfig(kube, tmp_path, monkeypatch):
    """The kubeconfig holds a token."""
    path = kube.write_kubeconfig(tmp_path / "kubeconfig", NAMESPACE)
    path.write_text(path.read_text().replace("fake-token", SECRET))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    assert SECRET in str(connect().client.configuration.api_key)


@pytest.fixture
def url(prepared, tmp_path):
    """Where a packed dataset is to be had by whoever knows the password; `asked` has what was asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *given):
            super().__init__(*given, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            asked.append(f"{self.path} {self.headers}")

    shutil.make_archive(str(tmp_path / "served" / "papers"), "zip", prepared.data_root / "papers")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        yield SimpleNamespace(
            good=f"http://{host}/papers.zip?token={SECRET}",
            gone=f"http://{host}/none.zip?token={SECRET}",
            refused=f"http://me:{SECRET}@{host}/papers.zip?token={SECRET}",
            asked=asked,
        )
        server.shutdown()
        thread.join(5)


def download(tmp_path, dataset, launcher):
    """The first step of the pipeline, by its form."""
    raw = SimpleNamespace(path=str(tmp_path / "raw-artifact"), metadata={})
    form = [dataset, "default", "", "settings", 0.0, 0.0, 2, "", "", "6b2c1e9e-1111", launcher]
    job = f"{{volumes: {{citeflow-data: {tmp_path}}}}}"
    return steps.download(*form, job, data_root=str(tmp_path / "volume"), raw=raw), raw


def texts(folder):
    return {path: path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_a_secret_reaches_no_object_no_argument_no_line_and_no_file(
    launcher, kube, kubeconfig, url, prepared, tmp_path, capfd, monkeypatch
):
    settled, raw = download(tmp_path, url.good, launcher)
    assert any(SECRET in line for line in url.asked)
    assert settled.run == "papers-6b2c1e9e"
    step = owner(kube, "citation-x7k2q-2104")
    monkeypatch.setenv("KFP_POD_NAME", step.name)
    monkeypatch.setenv("KFP_POD_UID", step.uid)
    words = ["launch", str(prepared.graph), "--run-name", settled.run, "--launcher", launcher, "--run-id", "6b2c1e9e"]
    words += ["--data-root", str(prepared.data_root), "--job", f"{{volumes: {{citeflow-data: {prepared.data_root}}}}}"]
    assert main([*words, "--dry-run"]) == 0
    with TrainingOperator(kube, script=lambda pod: ["begins", 0]):
        kube.fail(2, status=503, message="too busy")
        assert main(words) == 75
    pods = kube.list("pods", NAMESPACE)
    assert any("torch.distributed.run" in json.dumps(pod) for pod in pods)
    objects = json.dumps([pods, kube.list(f"{launcher}s", NAMESPACE), kube.list("services", NAMESPACE)])
    sent = json.dumps([[seen.path, seen.query, seen.body] for seen in kube.requests])
    told = capfd.readouterr()
    assert launcher in told.out.lower()
    assert "launch created" in told.err
    for text in (objects, sent, told.out, told.err, str(settled), json.dumps(raw.metadata)):
        assert SECRET not in text
    written = {**texts(tmp_path / "volume"), **texts(prepared.data_root / "runs" / settled.run)}
    assert len(written) > 3
    assert [path for path, text in written.items() if SECRET in text] == []


@pytest.mark.parametrize("kind", ["gone", "refused"])
def test_a_dataset_that_is_not_to_be_had_is_told_without_its_password(kind, url, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(fetch, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    with pytest.raises(SystemExit):
        download(tmp_path, getattr(url, kind), "local")
    told = capfd.readouterr()
    assert "error: " in told.err
    assert "127.0.0.1" in told.err
    assert SECRET not in told.out + told.err
    assert not any(SECRET in text for text in texts(tmp_path / "volume").values())


@pytest.mark.parametrize("command", ["launch", "reap"])
@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_refusal_is_told_without_the_token(command, status, kube, kubeconfig, prepared, capfd):
    kube.fail(status=status, message="no")
    volumes = f"{{volumes: {{citeflow-data: {prepared.data_root}}}}}"
    launched = ["launch", str(prepared.graph), "--run-name", "a", "--data-root", str(prepared.data_root)]
    assert main(["reap"] if command == "reap" else [*launched, "--job", volumes]) == 64
    told = capfd.readouterr()
    assert "error: the cluster refuses: no" in told.err
    assert SECRET not in told.out + told.err


def test_a_secret_reaches_no_compiled_file(checkout, tmp_path):
    for folder in ("components", "pipelines"):
        shutil.copytree(checkout / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    targets = [source.with_suffix(".yaml") for source in compilation.sources(tmp_path)]
    for target in targets:
        target.unlink()
    compilation.write(tmp_path)
    for target in targets:
        text = target.read_text()
        assert all(yaml.safe_load_all(text))
        assert SECRET not in text
        assert text == (checkout / target.relative_to(tmp_path)).read_text()
