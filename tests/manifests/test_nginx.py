"""The configuration of nginx, by nginx itself."""

import contextlib
import http.client
import http.server
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed (Debian: nginx-light)"
)
RUN = "published/report.html"
FILES = {
    f"runs/small/{RUN}": "<p>report</p>",
    "runs/small/published/report.json": "{}",
    "runs/small/published/model/model.safetensors": "weights",
    "runs/small/published/.report.json.x1": "{",
    "runs/small/model/model.safetensors": "weights",
    "runs/small/model/manifest.json": "{}",
    "runs/small/checkpoints/step.json": "{}",
    "runs/small/report/report.json": "{}",
    f"runs/.small.x1/{RUN}": "half of it",
    "runs/unpublished/model/model.json": "{}",
    "logs/small/events": "events",
    "prepared/abc/manifest.json": "{}",
    "secret.html": "secret",
}


class Backend(http.server.BaseHTTPRequestHandler):
    """Stands in for TensorBoard: answers with the request as it came."""

    def do_GET(self):
        length = int(self.headers.get("Content-Length", 0))
        names = ("Host", "X-Forwarded-Proto")
        headers = [str(self.headers[name]) for name in names]
        text = " ".join([self.command, self.path, *headers]).encode()
        self.rfile.read(length)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def volume(tmp_path_factory):
    """A volume with a run, and with much that must not be served."""
    root = tmp_path_factory.mktemp("volume")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "runs/linked/published").mkdir(parents=True)
    (root / "runs/linked" / RUN).symlink_to(root / "secret.html")
    return root


@pytest.fixture(scope="module")
def port(folder, volume, tmp_path_factory):
    """Return the port of nginx, whose configuration differs from the manifests' in paths alone."""
    work = tmp_path_factory.mktemp("nginx")
    for path in [work, volume, *volume.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755)
    with backend() as upstream, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        config = folder / "components" / "web" / "nginx.conf"
        text = moved(config.read_text(), volume, work, f"127.0.0.1:{port}", upstream)
        (work / "nginx.conf").write_text(text)
        free.close()
        with running(work / "nginx.conf", port):
            yield port


def moved(text, volume, work, listen, upstream):
    for old, new in {  # the temporary folder first: the others may lie below it
        "/tmp/": f"{work}/",
        "root /mnt/citeflow;": f"root {volume};",
        "listen 8080;": f"listen {listen};",
        "http://citeflow-tensorboard;": f"http://{upstream};",
        "worker_processes 2;": f"worker_processes 1; {'user root;' if os.getuid() == 0 else ''}",
        "/dev/stdout": f"{work}/access.log",
        "error_log stderr": f"error_log {work}/error.log",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def backend():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def running(config, port):
    arguments = [NGINX, "-e", config.parent / "error.log", "-c", config]
    tested = subprocess.run([*arguments, "-t"], capture_output=True, text=True, timeout=30)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_for(port, server)
            yield
        finally:
            server.terminate()
            server.wait(timeout=20)


def wait_for(port, server):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except ConnectionRefusedError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)


def ask(port, path, method="GET"):
    """Status, headers and body of an answer."""
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    ) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def test_nginx_answers_its_probe(port):
    assert ask(port, "/healthz")[::2] == (200, "ok\n")


@pytest.mark.parametrize("path", ["/", "/tensorboard"])
def test_nginx_redirects_to_tensorboard_on_any_host(port, path):
    status, headers, _ = ask(port, path)
    assert (status, headers["Location"]) == (302, "/tensorboard/")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nginx_forwards_prefix_query_and_host(port, method):
    status, _, body = ask(port, "/tensorboard/data/plugin/scalars?run=a%2Fb", method)
    assert (status, body) == (
        200,
        f"{method} /tensorboard/data/plugin/scalars?run=a%2Fb 127.0.0.1:{port} http",
    )


@pytest.mark.parametrize(
    ("name", "kind"), [("report.html", "text/html"), ("report.json", "application/json")]
)
def test_nginx_serves_reports_with_type_and_sandbox(port, name, kind):
    status, headers, body = ask(port, f"/runs/small/published/{name}")
    assert (status, body) == (200, FILES[f"runs/small/published/{name}"])
    assert headers["Content-Type"].partition(";")[0] == kind
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    for key in ("X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"):
        assert headers.get_all(key) is not None
        assert len(headers.get_all(key)) == 1


def test_report_page_allows_no_more_than_nginx(folder):
    from citeflow.reporting.html import POLICY

    (policy,) = re.findall(
        r'Content-Security-Policy "([^"]*)"', (folder / "components/web/nginx.conf").read_text()
    )
    assert policy == POLICY


def test_nginx_lists_runs_without_unfinished_ones(port):
    status, _, body = ask(port, "/runs/")
    assert status == 200
    assert 'href="small/"' in body
    assert ".small" not in body


@pytest.mark.parametrize("path", ["/runs/small/", "/runs/small/published/"])
def test_nginx_redirects_a_run_to_its_report(port, path):
    status, headers, _ = ask(port, path)
    assert (status, headers["Location"]) == (302, "/runs/small/published/report.html")


@pytest.mark.parametrize(
    "path",
    [
        f"/{name}"
        for name in FILES
        if not re.fullmatch(r"runs/small/published/report\.(html|json)", name)
    ]
    + [
        "/logs/",
        "/runs/small/model/",
        "/runs/small/published/model/",
        "/runs/linked/published/report.html",
        "/runs/small/published/../model/model.safetensors",
        "/runs/small/published/..%2fmodel/model.safetensors",
        "/runs/../secret.html",
        "/runs/%2e%2e/secret.html",
        "/healthz/",
        "/nothing",
    ],
)
def test_nginx_serves_nothing_else_on_the_volume(port, path):
    status, _, body = ask(port, path)
    assert status in (400, 403, 404)
    assert body not in FILES.values()


@pytest.mark.parametrize("path", ["/runs/", "/runs/small/published/report.html"])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_nginx_refuses_changes(port, volume, path, method):
    assert ask(port, path, method)[0] in (403, 405)
    assert (volume / "runs/small" / RUN).read_text() == FILES[f"runs/small/{RUN}"]


def test_nginx_hides_its_version(port):
    assert ask(port, "/nothing")[1]["Server"] == "nginx"
