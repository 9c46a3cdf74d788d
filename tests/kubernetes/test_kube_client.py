import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from clusters import NAMESPACE, PYTORCHJOB, close, connect, identity
from kubernetes.client import ApiException
from kubernetes.config import kube_config

from citeflow.errors import ConfigError
from citeflow.kubernetes import client as client_module
from citeflow.kubernetes.job_spec import JobSpec


def test_job_is_created_once_listed_and_deleted(client, kube, launcher):
    rendered = launcher.render(JobSpec(), identity())
    assert client.job(launcher, identity().name) is None
    assert client.create(launcher, rendered)
    assert not client.create(launcher, rendered)
    (job,) = client.jobs(launcher)
    assert job == client.job(launcher, job.name)
    assert client.set_owners(launcher, job, [])
    kube.patch(launcher.plural, NAMESPACE, job.name, {"metadata": {"annotations": {"a": "b"}}})
    assert not client.set_owners(launcher, job, [])
    assert not client.delete(launcher, job.name, as_of=job)
    assert client.delete(launcher, job.name)
    assert client.delete(launcher, job.name)
    assert kube.requests[-1].body["propagationPolicy"] == "Background"


def test_retry_after_is_obeyed(kube):
    slept = []
    client = connect(kube.url, sleep=slept.append, patience_s=60)
    kube.fail(1, status=429, headers={"Retry-After": "7"})
    assert client.job(PYTORCHJOB, "x") is None
    assert slept == [7.0]
    close(client)


def test_tls_that_is_cut_is_repeated_and_distrust_is_not(client, monkeypatch):
    errors = [ApiException(status=0, reason="SSLError: UNEXPECTED_EOF_WHILE_READING")]
    request = client.api.request

    def cut_once(*args, **options):
        if errors:
            raise errors.pop()
        return request(*args, **options)

    monkeypatch.setattr(client.api, "request", cut_once)
    assert client.job(PYTORCHJOB, "x") is None
    errors.append(ApiException(status=0, reason="SSLError\n[SSL: CERTIFICATE_VERIFY_FAILED]"))
    with pytest.raises(ConfigError, match=r"no trusted connection to the cluster: SSLError \[SSL"):
        client.job(PYTORCHJOB, "x")


@pytest.mark.parametrize("text", [None, "", "[1]", "a: [", "current-context: x\ncontexts: []"])
def test_connect_without_a_kubeconfig_is_refused(tmp_path, monkeypatch, text):
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(ConfigError, match="no connection to a cluster") as told:
        client_module.connect()
    assert "KUBECONFIG" in told.value.hint


def test_connect_takes_the_namespace_of_the_kubeconfig(kube, tmp_path, monkeypatch):
    path = kube.write_kubeconfig(tmp_path / "config", "default")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    for namespace in ("", "kubeflow"):
        client = client_module.connect(namespace=namespace)
        assert client.jobs(PYTORCHJOB) == []
        assert kube.requests[-1].namespace == (namespace or "default")
        close(client)


WEBHOOK = (
    'admission webhook "validator.trainjob.trainer.kubeflow.org" denied the request: no runtime'
)


@pytest.mark.parametrize(
    ("message", "hint"),
    [
        ("pytorchjobs is forbidden: exceeded quota: team", "describe resourcequota"),
        (WEBHOOK, "a webhook denies it"),
        ("User cannot create resource pytorchjobs", "which rights are missing"),
    ],
)
def test_create_says_why_the_cluster_refuses(kube, client, message, hint):
    kube.fail(status=403, message=message, verb="create")
    with pytest.raises(ConfigError) as told:
        client.create(PYTORCHJOB, PYTORCHJOB.render(JobSpec(), identity()))
    assert (told.value.value, told.value.exit_code) == (message, 64)
    assert hint in told.value.hint


@contextlib.contextmanager
def served(*chunks):
    """Serve the same bytes to every request, one piece after the other."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response_only(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for chunk in (*chunks, b""):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        client = connect(f"http://127.0.0.1:{server.server_address[1]}")
        yield client
        close(client)
        server.shutdown()
        thread.join(5)


def lines_of(*chunks):
    with served(*chunks) as client:
        return list(client.follow_log("p", "c", since=None))


def test_follow_log_splits_at_line_feeds_only():
    text = "2026-01-01T12:00:00Z gr\u00fc\u00dfe \u6c34\r\n\nthird\rpart\x00\u2028end\n"
    wanted = ["2026-01-01T12:00:00Z gr\u00fc\u00dfe \u6c34\r", "", "third\rpart\x00\u2028end"]
    for size in (1, 3, 1000):
        pieces = [text.encode()[at : at + size] for at in range(0, len(text.encode()), size)]
        assert lines_of(*pieces) == wanted


def test_follow_log_replaces_bytes_and_drops_a_cut_line():
    lines = lines_of(b"a \xff\xfe b\n", b"caf\xc3\xa9\n", b"tw")
    assert lines == ["a \ufffd\ufffd b", "caf\u00e9"]
