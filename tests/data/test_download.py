"""Downloads over connections that fail in every way that a scripted server can fail."""

import functools
import hashlib
import random
import signal
import ssl
import subprocess
import sys
import time

import pytest
from certificates import write_certificate
from fault_server import (
    LOGIN_PAGE,
    cut_after,
    drip,
    first_bytes,
    half_a_chunk,
    send,
    serving,
    stall_after,
)

from citeflow import files
from citeflow.data import download
from citeflow.data.download import fetch
from citeflow.errors import CiteflowError, DataError, NotFoundError, UnavailableError

CONTENT = random.Random(7).randbytes(40_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()

quick = functools.partial(fetch, timeout_s=20, wait_s=0.001)


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "down" / "file.zip"


@pytest.fixture
def faulty(server, target):
    """The server of a test of a fault: it must have misbehaved, and never be believed."""
    yield server
    is_wrong = target.exists() and target.read_bytes() != server.content
    assert server.num_faults
    assert not is_wrong


@pytest.fixture
def waits_s(monkeypatch):
    """The pauses between attempts, which take no time."""
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    return pauses


def test_fetch_gives_a_whole_file_and_nothing_else(server, target, monkeypatch, capsys):
    monkeypatch.setattr(download, "LOG_EVERY_S", 0.0)
    assert quick(server.url, target) == DIGEST
    assert "of=40,000" in capsys.readouterr().err
    assert quick(server.url, target, sha256=DIGEST) == DIGEST
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert len(server.requests) == 1


def test_fetch_copies_a_file_url(tmp_path, target):
    (tmp_path / "a b.zip").write_bytes(CONTENT)
    assert fetch((tmp_path / "a b.zip").as_uri(), target, sha256=DIGEST.upper()) == DIGEST
    assert target.read_bytes() == CONTENT
    with pytest.raises(NotFoundError, match="no such file"):
        fetch((tmp_path / "nothing.zip").as_uri(), target)


@pytest.mark.fault("F23")
def test_fetch_resumes_where_it_was_cut(faulty, target):
    early = send(206, CONTENT[15_000:20_000], Content_Range="bytes 15000-19999/40000")
    faulty.script = [cut_after(10_000), cut_after(0), cut_after(1), cut_after(4_999), early]
    assert quick(faulty.url, target, attempts=9) == DIGEST
    starts = [10_000, 10_000, 10_001, 15_000, 20_000]
    assert faulty.ranges == [None, *(f"bytes={start}-" for start in starts)]
    assert faulty.requests[1][1]["If-Range"] == '"one"'


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.fault("F23", nightly=n > 0)) for n in range(20)]
)
def test_fetch_of_random_cuts_is_never_wrong(seed, server, target):
    rng = random.Random(seed)
    twice_bytes = 0
    for number in range(50):
        target.unlink(missing_ok=True)
        server.sent_bytes = 0
        num_bytes = rng.randrange(len(CONTENT))
        is_cut = number % 3 == 0
        short = first_bytes(num_bytes, declared=number % 3 == 1)
        server.script = [cut_after(num_bytes) if is_cut else short]
        with pytest.raises(UnavailableError if is_cut else DataError):
            quick(server.url, target, sha256=DIGEST, attempts=1)
        assert not target.exists()
        assert quick(server.url, target, sha256=DIGEST) == DIGEST
        # The server's thread counts what it has sent a moment after it was received.
        deadline_s = time.monotonic() + 5
        while server.sent_bytes < len(CONTENT) and time.monotonic() < deadline_s:
            time.sleep(0.001)
        twice_bytes += server.sent_bytes - len(CONTENT) if is_cut else 0
    assert (server.num_faults, twice_bytes) == (50, 0)


@pytest.mark.fault("F23")
def test_fetch_resumes_what_a_killed_process_left(faulty, target):
    faulty.script = [stall_after(12_345)]
    code = "import sys, pathlib; from citeflow.data.download import fetch; "
    code += "fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    part = target.with_name("file.zip.part")
    with subprocess.Popen([sys.executable, "-c", code, faulty.url, str(target)]) as process:
        deadline_s = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    received = part.stat().st_size
    assert 0 < received <= 12_345
    assert quick(faulty.url, target) == DIGEST
    assert faulty.ranges[1] == f"bytes={received}-"


def test_fetch_starts_again_after_a_part_without_note(server, target):
    files.save_chunks(target.with_name("file.zip.part"), [b"of unknown origin"])
    files.write_json(target.with_name("file.zip.part.json"), {"url": server.url})
    assert quick(server.url, target) == DIGEST
    assert server.ranges == [None]


@pytest.mark.fault("F23")
def test_fetch_starts_again_after_a_change_on_the_server(faulty, target):
    def change_and_serve(handler):
        faulty.etag, faulty.content = '"two"', CONTENT[::-1]
        cut_after(1 << 40)(handler)

    faulty.script = [cut_after(10_000), change_and_serve]
    quick(faulty.url, target)
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.fault("F23")
@pytest.mark.parametrize("etag", ['"one"', ""])
@pytest.mark.parametrize(
    "fault",
    [
        send(200, CONTENT, Content_Length="40000"),
        send(206, CONTENT, Content_Range="bytes 0-39999/40000"),
        send(206, CONTENT[:10], Content_Range="bytes 10000-10009/77"),
        send(206, CONTENT, Content_Range="nonsense"),
        send(206),
        send(416),
    ],
)
def test_fetch_does_not_append_another_range(faulty, target, fault, etag):
    faulty.etag = etag  # without one, the size tells whether it is the same file
    faulty.script = [cut_after(10_000), fault]
    assert quick(faulty.url, target) == DIGEST
    assert faulty.ranges[:2] == [None, "bytes=10000-"]
    assert not any(faulty.ranges[2:])


@pytest.mark.fault("F23")
def test_fetch_ends_a_stall_by_the_timeout_and_resumes(faulty, target):
    faulty.script = [stall_after(20_000)]
    start_s = time.monotonic()
    assert quick(faulty.url, target, timeout_s=0.5) == DIGEST
    assert time.monotonic() - start_s < 10
    assert faulty.sent_bytes == len(CONTENT)


@pytest.mark.fault("F23")
def test_fetch_takes_a_dripping_server_for_stalled(faulty, target):
    faulty.script = [drip]
    start_s = time.monotonic()
    with pytest.raises(UnavailableError, match="less than 1024 bytes/s"):
        quick(faulty.url, target, timeout_s=0.5, attempts=1)
    assert time.monotonic() - start_s < 10


@pytest.mark.fault("F23")
@pytest.mark.parametrize("fault", [*map(send, (408, 429, 500, 502, 503, 504)), half_a_chunk])
def test_fetch_tries_again_after_a_transient_failure(faulty, target, fault):
    faulty.script = [fault, fault]
    assert quick(faulty.url, target) == DIGEST
    assert len(faulty.requests) == 3


@pytest.mark.fault("F23")
def test_fetch_gives_up_after_doubling_waits(faulty, target, waits_s):
    faulty.script = [send(503)] * 9
    with pytest.raises(UnavailableError, match="HTTP 503"):
        fetch(faulty.url, target)
    assert waits_s == [0.4, 0.8, 1.6, 3.2]


def test_fetch_obeys_retry_after_up_to_a_minute(server, target, waits_s):
    server.script = [send(503, Retry_After=wait) for wait in ("7", "99999", "soon")]
    assert fetch(server.url, target) == DIGEST
    assert waits_s == [7, 60, 1.6]


@pytest.mark.parametrize(
    ("code", "kind"), [(404, NotFoundError), (410, NotFoundError), (403, UnavailableError)]
)
def test_fetch_takes_a_refusal_as_final(server, target, code, kind):
    server.script = [send(code)]
    with pytest.raises(kind, match=f"HTTP {code}") as caught:
        quick(f"{server.url}?token=hush", target)
    assert len(server.requests) == 1
    assert "hush" not in str(caught.value)


def test_fetch_follows_a_redirect(server, target):
    server.script = [send(302, Location="/elsewhere.zip")]
    assert quick(server.url, target) == DIGEST
    assert server.requests[1][0] == "/elsewhere.zip"


@pytest.mark.fault("F23")
@pytest.mark.parametrize(
    "location", ["/file.zip", "file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "http://[::/"]
)
def test_fetch_refuses_a_redirect_loop_or_protocol(faulty, target, location):
    faulty.script = [send(302, Location=location)] * 30
    with pytest.raises((UnavailableError, NotFoundError), match=r"redirect|not a URL"):
        quick(faulty.url, target)
    assert len(faulty.requests) < 15
    assert not target.exists()


@pytest.mark.fault("F23")
@pytest.mark.parametrize("fault", [send(200, LOGIN_PAGE), send(200, CONTENT, Content_Length="9")])
def test_fetch_refuses_another_digest(faulty, target, fault):
    faulty.script = [fault]
    with pytest.raises(DataError, match=f"wrong sha256.*expected {DIGEST}"):
        quick(faulty.url, target, sha256=DIGEST)
    assert list(target.parent.iterdir()) == []
    assert quick(faulty.url, target, sha256=DIGEST) == DIGEST


def test_fetch_without_a_server_ends_in_seconds(target, waits_s):
    with serving(b"") as stopped:
        url = stopped.url
    with pytest.raises(UnavailableError, match="refused") as caught:
        fetch(f"{url}?token=hush", target)
    assert sum(waits_s) < 7
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["s3://me:hush@b/x?hush", "http://", "x.zip", "http://h:port/x", "http://[::1/x", "file://[/x"],
)
def test_fetch_refuses_what_is_not_a_url(target, url):
    with pytest.raises(NotFoundError, match="not a URL") as caught:
        quick(url, target)
    assert not target.parent.exists()
    assert "hush" not in str(caught.value)


def test_fetch_uses_proxies_of_the_environment(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.zip"))
    monkeypatch.setenv("no_proxy", "")
    assert quick("http://papers.invalid/file.zip", target) == DIGEST
    assert server.requests[0][0] == "http://papers.invalid/file.zip"


def test_fetch_trusts_the_certificates_of_the_machine(target, tmp_path, monkeypatch):
    certificate = write_certificate(tmp_path / "server.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(CONTENT, tls=tls) as server:
        with pytest.raises(CiteflowError) as caught:
            quick(server.url, target)
        assert "the certificate is not trusted on this machine" in caught.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        download._ssl_context.cache_clear()
        assert quick(server.url, target) == DIGEST
    download._ssl_context.cache_clear()
