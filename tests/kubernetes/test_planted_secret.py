"""A secret that is planted wherever one may lie is found nowhere that others read."""

import json
import shutil
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import yaml
from clusters import NAMESPACE, owner
from fakes.kfp_server import serving
from fakes.operator import TrainingOperator
from kubernetes.config import kube_config

from citeflow import steps
from citeflow.cli import main
from citeflow.data import download as fetch
from citeflow.kubeflow import api, client, compile
from citeflow.kubernetes import logs, watcher
from citeflow.kubernetes.client import connect

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
    "DOCKER_AUTH_CONFIG",
    "REGISTRY_PASSWORD",
    "PIP_INDEX_URL",
)


@pytest.fixture(autouse=True)
def planted(tmp_path, monkeypatch):
    """The environment holds secrets, and names files that do."""
    monkeypatch.chdir(tmp_path)
    for name in VARIABLES:
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    for name in (
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AWS_SHARED_CREDENTIALS_FILE",
        "DOCKER_CONFIG",
        "NETRC",
    ):
        (tmp_path / name).write_text(SECRET)
        monkeypatch.setenv(name, str(tmp_path / name))
    for part, number in ((watcher, "POLL_S"), (watcher, "SEEN_LATE_S"), (logs, "AGAIN_S")):
        monkeypatch.setattr(part, number, 0.05)
    monkeypatch.setattr(api, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(api, "PATIENCE_S", 0.05)
    monkeypatch.setattr(client, "LOOKED_FOR_S", (0.01,))


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


@pytest.fixture
def search(figure):
    """Counts those of some texts that hold a secret, and hands over of how many."""

    def search(*told):
        hits = [text for text in told if SECRET in text]
        figure(
            hits=len(hits), texts_searched=len(told), bytes_searched=sum(len(text) for text in told)
        )
        return len(hits)

    return search


def texts(folder):
    return {
        path: path.read_bytes().decode(errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.fault("F36")
@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_a_secret_reaches_no_object_no_argument_no_line_and_no_file(
    launcher, kube, kubeconfig, url, prepared, tmp_path, search, capfd, monkeypatch
):
    settled, raw = download(tmp_path, url.good, launcher)
    assert any(SECRET in line for line in url.asked)
    assert settled.run == "papers-6b2c1e9e"
    step = owner(kube, "citation-x7k2q-2104")
    monkeypatch.setenv("KFP_POD_NAME", step.name)
    monkeypatch.setenv("KFP_POD_UID", step.uid)
    words = [
        "launch",
        str(prepared.graph),
        "--run-name",
        settled.run,
        "--launcher",
        launcher,
        "--run-id",
        "6b2c1e9e",
    ]
    words += [
        "--data-root",
        str(prepared.data_root),
        "--job",
        f"{{volumes: {{citeflow-data: {prepared.data_root}}}}}",
    ]
    assert main([*words, "--dry-run"]) == 0
    with TrainingOperator(kube, script=lambda pod: ["begins", 0]):
        kube.fail(2, status=503, message="too busy")
        assert main(words) == 75
    pods = kube.list("pods", NAMESPACE)
    assert any("torch.distributed.run" in json.dumps(pod) for pod in pods)
    objects = json.dumps(
        [pods, kube.list(f"{launcher}s", NAMESPACE), kube.list("services", NAMESPACE)]
    )
    sent = json.dumps([[seen.path, seen.query, seen.body] for seen in kube.requests])
    told = capfd.readouterr()
    assert launcher in told.out.lower()
    assert "launch created" in told.err
    assert search(objects, sent, told.out, told.err, str(settled), json.dumps(raw.metadata)) == 0
    written = {**texts(tmp_path / "volume"), **texts(prepared.data_root / "runs" / settled.run)}
    assert len(written) > 3
    assert search(*written.values(), *map(str, written)) == 0


@pytest.mark.fault("F36")
@pytest.mark.parametrize("kind", ["gone", "refused"])
def test_a_dataset_that_is_not_to_be_had_is_told_without_its_password(
    kind, url, tmp_path, search, capfd, monkeypatch
):
    monkeypatch.setattr(
        fetch, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    )
    with pytest.raises(SystemExit):
        download(tmp_path, getattr(url, kind), "local")
    told = capfd.readouterr()
    assert "error: " in told.err
    assert "127.0.0.1" in told.err
    assert search(told.out, told.err, *texts(tmp_path / "volume").values()) == 0


@pytest.mark.fault("F36")
def test_a_bug_is_traced_without_the_password_of_the_url(url, tmp_path, search):
    """A real process, whose traceback is Python's own."""
    bug = "import sys\nfrom citeflow import stages\nstages._timed = lambda *given: {}['no such key']\n"
    bug += "from citeflow.cli import main\nsys.exit(main(sys.argv[1:]))"
    words = ["download", url.good, "--data-root", str(tmp_path / "volume")]
    done = subprocess.run(
        [sys.executable, "-c", bug, *words], capture_output=True, text=True, timeout=60
    )
    assert "KeyError: 'no such key'" in done.stderr
    assert done.returncode == 1
    assert search(done.stdout, done.stderr, *texts(tmp_path / "volume").values()) == 0


@pytest.mark.fault("F36")
def test_a_submission_holds_no_secret_but_in_the_header_that_is_for_it(tmp_path, search, capfd):
    (tmp_path / "token").write_text(SECRET)
    with serving(token=SECRET) as kfp:
        words = [
            "submit",
            "--host",
            kfp.url,
            "--token-file",
            "token",
            "--dataset",
            "synthetic",
            "--job",
            "{cpu: 2}",
        ]
        assert main([*words, "--dry-run"]) == 0
        assert main(words) == 0
        kfp.fail("POST", "/runs", 500, times=9)
        assert main(words) != 0
        state = kfp.state
    assert state.seen[-1].headers["authorization"] == f"Bearer {SECRET}"
    sent = [f"{seen.path} {seen.query} {seen.body}" for seen in state.seen]
    told = capfd.readouterr()
    assert len(state.uploaded) > 0
    assert (
        search(told.out, told.err, str(state.uploaded), str(state.runs), *sent, " ".join(sys.argv))
        == 0
    )


@pytest.mark.fault("F36")
def test_doctor_tells_no_secret(kube, kubeconfig, search, capfd, monkeypatch):
    with serving(token=SECRET) as kfp:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kfp.url)
        main(["doctor", "--json"])
        main(["doctor"])
        kfp.state.errors.clear()  # the stand-in knows no version, which only doctor asks for
    told = capfd.readouterr()
    assert len(told.out.splitlines()) > 10
    assert search(told.out, told.err) == 0


@pytest.mark.fault("F36", nightly=True)
def test_a_whole_run_of_a_dataset_behind_a_password_leaves_it_in_no_file(
    url, tmp_path, search, capfd
):
    words = [
        "run",
        "--dataset",
        url.good,
        "--out",
        str(tmp_path / "out"),
        "--data-root",
        str(tmp_path / "volume"),
    ]
    assert main([*words, "--set", "train.epochs=1", "--set", "model.hidden_channels=16"]) == 0
    written = {**texts(tmp_path / "volume"), **texts(tmp_path / "out")}
    told = capfd.readouterr()
    assert any("tfevents" in path.name for path in written)
    assert search(told.out, told.err, *written.values(), *map(str, written)) == 0


@pytest.mark.fault("F36")
@pytest.mark.parametrize("command", ["launch", "reap"])
@pytest.mark.parametrize("status", [401, 403, 422])
def test_a_refusal_is_told_without_the_token(
    command, status, kube, kubeconfig, prepared, search, capfd
):
    kube.fail(status=status, message="no")
    volumes = f"{{volumes: {{citeflow-data: {prepared.data_root}}}}}"
    launched = [
        "launch",
        str(prepared.graph),
        "--run-name",
        "a",
        "--data-root",
        str(prepared.data_root),
    ]
    assert main(["reap"] if command == "reap" else [*launched, "--job", volumes]) == 64
    told = capfd.readouterr()
    assert "error: the cluster refuses: no" in told.err
    assert search(told.out, told.err) == 0


@pytest.mark.fault("F36")
def test_a_secret_reaches_no_compiled_file(checkout, tmp_path, search):
    for folder in ("components", "pipelines"):
        shutil.copytree(
            checkout / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    targets = [source.with_suffix(".yaml") for source in compile.sources(tmp_path)]
    for target in targets:
        target.unlink()
    compile.write(tmp_path)
    for target in targets:
        text = target.read_text()
        assert all(yaml.safe_load_all(text))
        assert search(text) == 0
        assert text == (checkout / target.relative_to(tmp_path)).read_text()
