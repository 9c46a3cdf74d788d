"""Rank 0 posts to the server of Kubeflow Trainer, which may be slow, away or hostile."""

import contextlib
import http.server
import json
import ssl
import threading
import time

import pytest
from certificates import write_certificate
from toy_task import OpenToyTask

from citeflow.training import trainjob_status
from citeflow.training.standing import Standing
from citeflow.training.trainjob_status import CA_CERT, TOKEN, URL, reporting, to_request
from citeflow.utils import progress

NAMES = OpenToyTask.names
PATH = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs/a/status"
DONE = Standing(
    activity="training",
    step=50,
    num_steps=200,
    share=0.2599,
    seconds=100,
    samples=400,
    loss=0.123456789,
    score=None,
)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind, authorization = self.headers["Content-Type"], self.headers["Authorization"]
        self.server.posts.append((self.path, kind, authorization, content))
        with contextlib.suppress(OSError):
            time.sleep(self.server.pause_s)
            self.send_response(self.server.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    def do_GET(self):
        self.server.redirected.append(self.headers["Authorization"])
        self.send_error(404)

    def log_message(self, *_):
        """Log nothing."""


class Server(http.server.ThreadingHTTPServer):
    pause_s = 0.0
    status = 200

    def handle_error(self, *_):
        """Say nothing of clients that leave."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server behind TLS, and the variables that the operator sets."""
    certificate = write_certificate(tmp_path / "ca.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    (tmp_path / "token").write_text("secret-1\n")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.posts = []
        server.redirected = []
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv(URL, f"https://127.0.0.1:{server.server_port}{PATH}")
        monkeypatch.setenv(CA_CERT, str(certificate))
        monkeypatch.setenv(TOKEN, str(tmp_path / "token"))
        monkeypatch.setattr(trainjob_status, "POST_EVERY_S", 0.01)
        yield server
        server.shutdown()
        thread.join()


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_request_is_what_the_api_takes():
    status = to_request(DONE, NAMES)["trainerStatus"]
    assert time.strptime(status.pop("lastUpdatedTime"), "%Y-%m-%dT%H:%M:%SZ")
    assert status == {
        "progressPercentage": 25,
        "estimatedRemainingSeconds": 285,
        "metrics": [
            {"name": "step", "value": "50"},
            {"name": "loss", "value": "0.123457"},
            {"name": "points", "value": "400"},
        ],
    }


def test_reporting_posts_until_the_end_with_the_token_of_the_moment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with reporting(lambda: DONE, NAMES):
        wait_for(lambda: server.posts)
        (tmp_path / "token").write_text("secret-2\n")
    path, kind, authorization, content = server.posts[0]
    assert (path, kind, authorization) == (PATH, "application/json", "Bearer secret-1")
    assert content["trainerStatus"]["progressPercentage"] == 25
    assert server.posts[-1][2] == "Bearer secret-2"


def test_reporting_survives_a_server_that_refuses(server, capfd):
    server.status = 403
    with reporting(lambda: DONE, NAMES):
        wait_for(lambda: len(server.posts) >= 3)
    log = capfd.readouterr().err
    assert log.count("cannot report to the TrainJob why=HTTP Error 403: Forbidden") == 1
    assert "secret" not in log


def test_reporting_sends_no_token_where_it_is_redirected(server):
    server.status = 302
    with reporting(lambda: DONE, NAMES):
        wait_for(lambda: server.redirected)
    assert set(server.redirected) == {None}


def test_reporting_logs_no_token_of_a_damaged_file(server, tmp_path, capfd):
    (tmp_path / "token").write_text("secret-1\n\nsecret-2\n")
    with reporting(lambda: DONE, NAMES):
        pass
    log = capfd.readouterr().err
    assert "cannot report to the TrainJob why=not a file with one token" in log
    assert "secret" not in log


def test_reporting_does_not_wait_for_a_server_that_hangs(server, monkeypatch):
    monkeypatch.setattr(progress, "JOIN_S", 0.05)
    server.pause_s = 2.0
    with reporting(lambda: DONE, NAMES):
        wait_for(lambda: server.posts)
        start = time.monotonic()
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize("missing", [URL, CA_CERT, TOKEN])
def test_reporting_is_off_without_its_variables(server, monkeypatch, missing):
    monkeypatch.delenv(missing)
    with reporting(lambda: DONE, NAMES):
        time.sleep(0.05)
    assert server.posts == []


def test_reporting_trusts_the_given_certificate_alone(server, tmp_path, monkeypatch, capfd):
    other = write_certificate(tmp_path / "other.crt")
    monkeypatch.setenv(CA_CERT, str(other))
    with reporting(lambda: DONE, NAMES):
        pass
    assert "certificate verify failed" in capfd.readouterr().err
    assert server.posts == []
