import base64
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from citeflow import stages, steps
from citeflow.cli import main
from citeflow.errors import UnavailableError
from citeflow.reporting import mlflow
from citeflow.reporting.mlflow.quiet import shown, without_known_secrets

PASSWORD = "hunter2-planted"


@pytest.fixture
def silent():
    """A port that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def refusing():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return port


@pytest.fixture
def strict():
    """A server that lets nobody in, and tells in its answer what it was asked with."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            given = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            self.send_response(401)
            self.end_headers()
            self.wfile.write(f"nobody is {given}".encode())

        def log_message(self, *args):
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(timeout=20)
    server.server_close()


def test_a_server_that_is_away_loses_nothing_and_the_hint_is_the_command_that_tells_it(
    trained, tmp_path, monkeypatch, refusing, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    out = tmp_path / "out"
    stages.publish(trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=out)
    with pytest.raises(UnavailableError) as told:
        mlflow.publish_run(
            trained.report, model=trained.model, log_dir=trained.log_dir, out_dir=out
        )
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html", "model"}
    assert (told.value.what, told.value.exit_code) == ("MLflow does not answer", 69)
    later = shlex.split(told.value.hint.partition("later: ")[2])
    assert later[0] == "citeflow"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(later[1:]) == 0
    assert f"logs={trained.log_dir}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["alone", "sweep/m-1-w-0-e-2"])
def test_a_server_that_is_away_ends_a_run_but_not_an_experiment(
    trained, out, monkeypatch, refusing, capsys, name
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    given = {"model": trained.model, "log_dir": trained.log_dir, "out_dir": out}
    if name == "alone":
        with pytest.raises(UnavailableError):
            steps._tell_trackers(trained.report, name, **given)
    else:
        steps._tell_trackers(trained.report, name, **given)
        told = capsys.readouterr().err
        assert "goes on without MLflow" in told
        assert "citeflow publish" in told


def test_a_server_that_never_answers_is_not_waited_for_longer_than_it_takes(
    publish, monkeypatch, silent
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="MLflow does not answer"):
        publish()
    assert 2 <= time.monotonic() - began < 60


def test_unless_the_user_says_otherwise_waits_are_bounded_and_nobody_else_is_told(
    publish, monkeypatch, refusing
):
    from citeflow.reporting.mlflow import server

    seen = {}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    monkeypatch.setattr(server, "tell", lambda account, uri: seen.update(os.environ) or "1")
    publish()
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "7",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "DO_NOT_TRACK": "true",
    }
    assert wanted.items() <= seen.items()
    assert not {"MLFLOW_HTTP_REQUEST_MAX_RETRIES", "DO_NOT_TRACK"} & set(os.environ)


@pytest.mark.parametrize("kind", ["refusing", "strict"])
def test_a_password_is_never_printed(publish, monkeypatch, request, kind, capfd):
    port = request.getfixturevalue(kind)
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", f"http://someone:{PASSWORD}@127.0.0.1:{port}?key={PASSWORD}"
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnavailableError, match=f"http://127.0.0.1:{port}") as told:
        publish()
    assert PASSWORD not in str(told.value)
    assert told.value.__cause__ is None
    assert PASSWORD not in "".join(capfd.readouterr())


def test_a_server_that_refuses_is_quoted(publish, monkeypatch, strict):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{strict}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    with pytest.raises(UnavailableError, match="401") as told:
        publish()
    assert r"nobody is someone:***" in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        f"API request to http://someone:{PASSWORD}@host:5000/api failed",
        f"Failed: postgresql://someone:{PASSWORD}@host/db",
        f"token {PASSWORD} has expired",
    ],
)
def test_a_message_is_told_without_what_must_stay_secret(text, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", PASSWORD)
    told = without_known_secrets(text, f"http://someone:{PASSWORD}@host:5000")
    assert PASSWORD not in told
    assert len(told) > 10


@pytest.mark.parametrize(
    "uri", [f"me:{PASSWORD}@host:5000", f"http://host/?token={PASSWORD}/", f"host?key={PASSWORD}"]
)
def test_a_uri_with_a_secret_anywhere_is_shown_and_quoted_without_it(uri):
    assert PASSWORD not in shown(uri)
    assert "host" in shown(uri)
    assert PASSWORD not in without_known_secrets(f"bad: {uri.removesuffix('/')}", uri)


def run_python(code, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_run_ends_before_it_begins_where_mlflow_is_to_be_told_and_is_not_installed(tmp_path):
    code = (
        "import sys; sys.modules['mlflow'] = None; from citeflow.cli import main; "
        f"sys.exit(main(['run', '--data-root', {str(tmp_path / 'data')!r}]))"
    )
    done = run_python(code, MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    assert done.returncode == 69
    assert done.stderr.startswith(
        "error: package is not installed: mlflow\nhint: pip install '.[mlflow]'"
    )
    assert not (tmp_path / "data").exists()


def test_without_the_variable_nothing_imports_mlflow(trained, tmp_path):
    argv = ["publish", trained.report, "--model", trained.model, "--out", tmp_path / "out"]
    code = (
        "import sys; import citeflow.steps, citeflow.stages, citeflow.reporting.mlflow; from citeflow.cli import main; "
        f"code = main({[*map(str, argv), '--data-root', str(trained.data_root)]!r}); "
        "sys.exit(code or 'mlflow' in sys.modules)"
    )
    done = run_python(code, MLFLOW_TRACKING_URI="")
    assert done.returncode == 0, done.stderr
