"""Downloads over a connection that breaks in every way that the script of a loopback server can think of."""

import hashlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial as bind
from pathlib import Path

import pytest
from fault_server import (
    FaultServer,
    cut_after,
    declared_short,
    drip,
    page,
    partial,
    serve,
    serving,
    stall_after,
    status,
    undeclared,
    whole_again,
)

from citeflow import files
from citeflow.data import download as fetch_module
from citeflow.data.download import fetch
from citeflow.errors import CiteflowError, DataError, NotFoundError, UnavailableError

CONTENT = random.Random(7).randbytes(40_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()

quick = bind(fetch, timeout_s=20, wait_s=0.001)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "down" / "file.zip"


@pytest.fixture
def faulty(server: FaultServer, target: Path, figure) -> Iterator[FaultServer]:
    """The server of a test of a fault: it must have misbehaved, and never be believed."""
    yield server
    is_wrong = target.exists() and target.read_bytes() != server.content
    figure(faults=server.num_faults, wrong_files_accepted=int(is_wrong))
    assert server.num_faults
    assert not is_wrong


def left_behind(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()} - {target.name}


def test_a_file_comes_whole_with_its_digest_and_nothing_beside_it(server, target):
    assert quick(server.url, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert left_behind(target) == set()


def test_a_file_url_is_copied(tmp_path, target):
    (tmp_path / "a b.zip").write_bytes(CONTENT)
    assert fetch((tmp_path / "a b.zip").as_uri(), target, sha256=DIGEST.upper()) == DIGEST
    assert target.read_bytes() == CONTENT


def test_a_target_with_the_right_digest_is_left_alone(server, target):
    quick(server.url, target)
    assert quick(server.url, target, sha256=DIGEST) == DIGEST
    assert len(server.requests) == 1


@pytest.mark.fault("F23")
def test_a_cut_download_continues_where_it_was_cut(faulty, target):
    faulty.script = [cut_after(10_000), cut_after(5_000)]
    assert quick(faulty.url, target) == DIGEST
    assert [headers.get("Range") for _, headers in faulty.requests] == [
        None,
        "bytes=10000-",
        "bytes=15000-",
    ]
    assert faulty.requests[1][1]["If-Range"] == '"one"'
    assert faulty.sent_bytes == len(CONTENT)


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.fault("F23", nightly=n > 0)) for n in range(20)]
)
def test_fifty_random_cuts_never_give_a_wrong_file_and_are_continued(seed, server, target, figure):
    rng, cuts, again = random.Random(seed), (cut_after, declared_short, undeclared), 0
    for number in range(50):
        target.unlink(missing_ok=True)
        server.sent_bytes, cut = 0, cuts[number % 3]
        server.script = [cut(rng.randrange(len(CONTENT)))]
        with pytest.raises(UnavailableError if cut is cut_after else DataError):
            quick(server.url, target, sha256=DIGEST, attempts=1)
        figure(cuts=1, wrong_files_accepted=int(target.exists()))
        assert not target.exists()
        assert quick(server.url, target, sha256=DIGEST) == DIGEST
        again += server.sent_bytes - len(CONTENT) if cut is cut_after else 0
    assert server.num_faults == 50
    figure(bytes_fetched_twice=again)
    assert again == 0


def test_several_cuts_of_one_download_fetch_no_byte_twice(server, target):
    server.script = [cut_after(number) for number in (9000, 0, 1, 30_000)]
    assert quick(server.url, target, sha256=DIGEST) == DIGEST
    assert server.sent_bytes == len(CONTENT)


@pytest.mark.fault("F23")
def test_another_process_continues_what_a_killed_one_left(faulty, target):
    faulty.script = [stall_after(12_345)]
    code = "import sys, pathlib; from citeflow.data.download import fetch; fetch(sys.argv[1], pathlib.Path(sys.argv[2]))"
    with subprocess.Popen([sys.executable, "-c", code, faulty.url, str(target)]) as process:
        part, deadline_s = target.with_name("file.zip.part"), time.monotonic() + 20
        while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not target.exists()
    came = part.stat().st_size
    assert 0 < came <= 12_345
    assert quick(faulty.url, target) == DIGEST
    assert faulty.requests[1][1]["Range"] == f"bytes={came}-"


def test_a_part_that_nothing_vouches_for_is_not_continued(server, target):
    files.save_chunks(target.with_name("file.zip.part"), [b"of unknown origin"])
    assert quick(server.url, target) == DIGEST
    assert "Range" not in server.requests[0][1]


@pytest.mark.fault("F23")
def test_a_file_that_changed_on_the_server_is_fetched_from_the_start(faulty, target):
    def change_then_serve(handler):
        faulty.etag, faulty.content = '"two"', CONTENT[::-1]
        serve(handler)

    faulty.script = [cut_after(10_000), change_then_serve]
    quick(faulty.url, target)
    assert target.read_bytes() == CONTENT[::-1]


@pytest.mark.fault("F23")
def test_without_an_etag_the_size_tells_whether_it_is_still_the_same_file(faulty, target):
    faulty.etag = ""
    faulty.script = [
        cut_after(10_000),
        cut_after(10_000),
        partial("bytes 20000-20001/20002", b"??"),
    ]
    assert quick(faulty.url, target) == DIGEST
    assert [headers.get("Range") for _, headers in faulty.requests[1:]] == [
        "bytes=10000-",
        "bytes=20000-",
        None,
    ]


@pytest.mark.fault("F23")
def test_a_server_without_ranges_starts_again(faulty, target):
    faulty.script = [cut_after(10_000), whole_again]
    assert quick(faulty.url, target) == DIGEST


@pytest.mark.fault("F23")
@pytest.mark.parametrize(
    "fault",
    [
        partial(f"bytes 0-39999/{len(CONTENT)}", CONTENT),
        partial("bytes 10000-10009/77", CONTENT[:10]),
        partial("nonsense", CONTENT),
        status(206),
        status(416),
    ],
)
def test_a_wrong_range_is_not_appended(faulty, target, fault):
    faulty.script = [cut_after(10_000), fault]
    assert quick(faulty.url, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert "Range" not in faulty.requests[2][1]


@pytest.mark.fault("F23")
def test_a_range_that_stops_early_is_continued(faulty, target):
    head = f"bytes 10000-19999/{len(CONTENT)}"
    faulty.script = [cut_after(10_000), partial(head, CONTENT[10_000:20_000])]
    assert quick(faulty.url, target) == DIGEST
    assert faulty.requests[2][1]["Range"] == "bytes=20000-"


@pytest.mark.fault("F23")
def test_a_stall_ends_with_the_timeout_and_is_continued(faulty, target, figure):
    faulty.script = [stall_after(20_000)]
    begin_s = time.monotonic()
    assert quick(faulty.url, target, timeout_s=0.5) == DIGEST
    figure(longest_stall_s=round(time.monotonic() - begin_s, 1), timeout_s=0.5)
    assert time.monotonic() - begin_s < 10
    assert faulty.sent_bytes == len(CONTENT)


@pytest.mark.fault("F23")
def test_a_server_that_drips_counts_as_stalled(faulty, target):
    faulty.script = [drip]
    begin_s = time.monotonic()
    with pytest.raises(UnavailableError, match="less than 1024 bytes/s"):
        quick(faulty.url, target, timeout_s=0.5, attempts=1)
    assert time.monotonic() - begin_s < 10


@pytest.mark.fault("F23")
@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(faulty, target, code):
    faulty.script = [status(code), status(code)]
    assert quick(faulty.url, target) == DIGEST


@pytest.mark.fault("F23")
def test_a_server_that_stays_busy_ends_it_after_all_attempts_with_doubling_waits(
    faulty, target, monkeypatch
):
    waits_s: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits_s.append)
    faulty.script = [status(503)] * 9
    with pytest.raises(UnavailableError, match="HTTP 503"):
        fetch(faulty.url, target)
    assert waits_s == [0.4, 0.8, 1.6, 3.2]


def test_a_server_may_ask_for_a_longer_wait_but_not_for_more_than_a_minute(
    server, target, monkeypatch
):
    waits_s: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits_s.append)
    server.script = [
        status(503, Retry_After="7"),
        status(503, Retry_After="99999"),
        status(503, Retry_After="soon"),
    ]
    assert fetch(server.url, target) == DIGEST
    assert waits_s == [7, 60, 1.6]


@pytest.mark.parametrize(
    ("code", "kind"), [(404, NotFoundError), (410, NotFoundError), (403, UnavailableError)]
)
def test_a_refusal_is_final(server, target, code, kind):
    server.script = [status(code)]
    with pytest.raises(kind, match=f"HTTP {code}"):
        quick(server.url, target)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server, target):
    server.script = [status(302, Location="/elsewhere.zip")]
    assert quick(server.url, target) == DIGEST
    assert server.requests[1][0] == "/elsewhere.zip"


@pytest.mark.fault("F23")
def test_a_redirect_loop_ends(faulty, target):
    faulty.script = [status(302, Location="/file.zip")] * 30
    with pytest.raises(UnavailableError, match="redirects that lead nowhere"):
        quick(faulty.url, target)
    assert len(faulty.requests) < 15


@pytest.mark.fault("F23")
@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_anything_but_http_is_not_followed(faulty, target, place):
    faulty.script = [status(302, Location=place)] * 9
    with pytest.raises(UnavailableError):
        quick(faulty.url, target, attempts=2)
    assert not target.exists()


@pytest.mark.fault("F23")
def test_a_login_page_is_not_taken_for_the_file(faulty, target):
    faulty.script = [page] * 9
    with pytest.raises(DataError) as caught:
        quick(faulty.url, target, sha256=DIGEST)
    assert DIGEST in str(caught.value)
    assert hashlib.sha256(b"<!doctype html><title>Log in</title>").hexdigest() in str(caught.value)
    assert not target.exists()
    assert left_behind(target) == set()


@pytest.mark.fault("F23")
def test_a_content_length_that_is_too_short_is_found_by_the_digest(faulty, target):
    faulty.script = [lambda handler: handler.answer(200, {"Content-Length": "9"}, CONTENT)]
    with pytest.raises(DataError, match="wrong sha256"):
        quick(faulty.url, target, sha256=DIGEST)
    assert quick(faulty.url, target, sha256=DIGEST) == DIGEST


@pytest.mark.fault("F23")
def test_a_cut_in_the_chunked_encoding_is_noticed(faulty, target):
    def half_a_chunk(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.answer(
            200, {"Transfer-Encoding": "chunked", "Connection": "close"}, b"ff\r\nonly a part"
        )
        handler.close_connection = True

    faulty.script = [half_a_chunk]
    assert quick(faulty.url, target) == DIGEST
    assert len(faulty.requests) == 2


def test_a_port_where_nobody_listens_ends_it(target):
    with serving(b"") as stopped:
        url = stopped.url
    with pytest.raises(UnavailableError, match="refused"):
        quick(url, target, attempts=3)


def test_no_network_ends_in_less_than_ten_seconds(target, monkeypatch):
    waits_s: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits_s.append)
    with serving(b"") as stopped:
        url = stopped.url
    with pytest.raises(UnavailableError):
        fetch(url, target)
    assert sum(waits_s) < 7


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/x.zip", "http://", "x.zip", "http://h:port/x", "http://[::1/x", "http://a b/"],
)
def test_what_is_no_url_is_refused_before_anything_is_written(tmp_path, url):
    with pytest.raises(NotFoundError):
        quick(url, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_file_url_to_nothing_is_refused(tmp_path, target):
    with pytest.raises(NotFoundError, match="no such file"):
        fetch((tmp_path / "nothing.zip").as_uri(), target)


def test_proxies_from_the_environment_are_used(server, target, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/file.zip"))
    monkeypatch.setenv("no_proxy", "")
    assert quick("http://papers.invalid/file.zip", target) == DIGEST
    assert server.requests[0][0] == "http://papers.invalid/file.zip"


def test_passwords_and_tokens_are_not_shown(server, target):
    server.script = [status(403)]
    with pytest.raises(CiteflowError) as caught:
        quick(f"{server.url}?token=hush", target)
    assert "hush" not in str(caught.value)
    with pytest.raises(NotFoundError) as caught:
        quick("s3://me:hush@bucket/x?hush", target)
    assert "hush" not in str(caught.value)


def test_progress_goes_to_stderr_now_and_then(server, target, monkeypatch, capsys):
    monkeypatch.setattr(fetch_module, "LOG_EVERY_S", 0.0)
    quick(server.url, target)
    out, err = capsys.readouterr()
    assert out == ""
    assert "download downloading" in err
    assert "of=40,000" in err
