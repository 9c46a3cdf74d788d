"""Downloads over a connection that breaks in every way that the script of a loopback server can think of."""

import hashlib
import random
import time
from collections.abc import Iterator
from functools import partial as bind
from pathlib import Path

import pytest
from fault_server import (
    FaultServer,
    cut_after,
    drip,
    page,
    partial,
    serve,
    serving,
    stall_after,
    status,
    whole_again,
)

from citeflow import files
from citeflow.data import fetch as fetch_module
from citeflow.data.fetch import fetch
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


def test_a_cut_download_continues_where_it_was_cut(server, target):
    server.script = [cut_after(10_000), cut_after(5_000)]
    assert quick(server.url, target) == DIGEST
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=10000-", "bytes=15000-"]
    assert server.requests[1][1]["If-Range"] == '"one"'
    assert server.sent_bytes == len(CONTENT)


def test_fifty_random_cuts_never_give_a_wrong_file_and_fetch_no_byte_twice(server, target):
    rng = random.Random(3)
    for _ in range(50):
        target.unlink(missing_ok=True)
        server.sent_bytes = 0
        server.script = [cut_after(rng.randrange(len(CONTENT))) for _ in range(rng.randint(1, 4))]
        assert quick(server.url, target, sha256=DIGEST) == DIGEST
        assert target.read_bytes() == CONTENT
        assert server.sent_bytes == len(CONTENT)


def test_another_process_continues_what_a_killed_one_left(server, target, monkeypatch):
    server.script = [cut_after(12_345)]
    monkeypatch.setattr(fetch_module.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        quick(server.url, target)
    monkeypatch.undo()
    assert not target.exists()
    assert quick(server.url, target) == DIGEST
    assert server.requests[1][1]["Range"] == "bytes=12345-"


def test_a_part_that_nothing_vouches_for_is_not_continued(server, target):
    files.save_chunks(target.with_name("file.zip.part"), [b"of unknown origin"])
    assert quick(server.url, target) == DIGEST
    assert "Range" not in server.requests[0][1]


def test_a_file_that_changed_on_the_server_is_fetched_from_the_start(server, target):
    def change_then_serve(handler):
        server.etag, server.content = '"two"', CONTENT[::-1]
        serve(handler)

    server.script = [cut_after(10_000), change_then_serve]
    quick(server.url, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_without_an_etag_the_size_tells_whether_it_is_still_the_same_file(server, target):
    server.etag = ""
    server.script = [cut_after(10_000), cut_after(10_000), partial("bytes 20000-20001/20002", b"??")]
    assert quick(server.url, target) == DIGEST
    assert [headers.get("Range") for _, headers in server.requests[1:]] == ["bytes=10000-", "bytes=20000-", None]


def test_a_server_without_ranges_starts_again(server, target):
    server.script = [cut_after(10_000), whole_again]
    assert quick(server.url, target) == DIGEST


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
def test_a_wrong_range_is_not_appended(server, target, fault):
    server.script = [cut_after(10_000), fault]
    assert quick(server.url, target) == DIGEST
    assert target.read_bytes() == CONTENT
    assert "Range" not in server.requests[2][1]


def test_a_range_that_stops_early_is_continued(server, target):
    head = f"bytes 10000-19999/{len(CONTENT)}"
    server.script = [cut_after(10_000), partial(head, CONTENT[10_000:20_000])]
    assert quick(server.url, target) == DIGEST
    assert server.requests[2][1]["Range"] == "bytes=20000-"


def test_a_stall_ends_with_the_timeout_and_is_continued(server, target):
    server.script = [stall_after(20_000)]
    begin_s = time.monotonic()
    assert quick(server.url, target, timeout_s=0.5) == DIGEST
    assert time.monotonic() - begin_s < 10
    assert server.sent_bytes == len(CONTENT)


def test_a_server_that_drips_counts_as_stalled(server, target):
    server.script = [drip]
    begin_s = time.monotonic()
    with pytest.raises(UnavailableError, match="less than 1024 bytes/s"):
        quick(server.url, target, timeout_s=0.5, attempts=1)
    assert time.monotonic() - begin_s < 10


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, target, code):
    server.script = [status(code), status(code)]
    assert quick(server.url, target) == DIGEST


def test_a_server_that_stays_busy_ends_it_after_all_attempts_with_doubling_waits(server, target, monkeypatch):
    waits_s: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits_s.append)
    server.script = [status(503)] * 9
    with pytest.raises(UnavailableError, match="HTTP 503"):
        fetch(server.url, target)
    assert waits_s == [0.5, 1, 2, 4]


def test_a_server_may_ask_for_a_longer_wait_but_not_for_more_than_a_minute(server, target, monkeypatch):
    waits_s: list[float] = []
    monkeypatch.setattr(fetch_module.time, "sleep", waits_s.append)
    server.script = [status(503, Retry_After="7"), status(503, Retry_After="99999"), status(503, Retry_After="soon")]
    assert fetch(server.url, target) == DIGEST
    assert waits_s == [7, 60, 2]


@pytest.mark.parametrize(("code", "kind"), [(404, NotFoundError), (410, NotFoundError), (403, UnavailableError)])
def test_a_refusal_is_final(server, target, code, kind):
    server.script = [status(code)]
    with pytest.raises(kind, match=f"HTTP {code}"):
        quick(server.url, target)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server, target):
    server.script = [status(302, Location="/elsewhere.zip")]
    assert quick(server.url, target) == DIGEST
    assert server.requests[1][0] == "/elsewhere.zip"


def test_a_redirect_loop_ends(server, target):
    server.script = [status(302, Location="/file.zip")] * 30
    with pytest.raises(UnavailableError, match="redirects that lead nowhere"):
        quick(server.url, target)
    assert len(server.requests) < 15


@pytest.mark.parametrize("place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_anything_but_http_is_not_followed(server, target, place):
    server.script = [status(302, Location=place)] * 9
    with pytest.raises(UnavailableError):
        quick(server.url, target, attempts=2)
    assert not target.exists()


def test_a_login_page_is_not_taken_for_the_file(server, target):
    server.script = [page] * 9
    with pytest.raises(DataError) as caught:
        quick(server.url, target, sha256=DIGEST)
    assert DIGEST in str(caught.value)
    assert hashlib.sha256(b"<!doctype html><title>Log in</title>").hexdigest() in str(caught.value)
    assert not target.exists()
    assert left_behind(target) == set()


def test_a_content_length_that_is_too_short_is_found_by_the_digest(server, target):
    server.script = [lambda handler: handler.answer(200, {"Content-Length": "9"}, CONTENT)]
    with pytest.raises(DataError, match="wrong sha256"):
        quick(server.url, target, sha256=DIGEST)
    assert quick(server.url, target, sha256=DIGEST) == DIGEST


def test_a_cut_in_the_chunked_encoding_is_noticed(server, target):
    def half_a_chunk(handler):
        handler.protocol_version = "HTTP/1.1"
        handler.answer(200, {"Transfer-Encoding": "chunked", "Connection": "close"}, b"ff\r\nonly a part")
        handler.close_connection = True

    server.script = [half_a_chunk]
    assert quick(server.url, target) == DIGEST
    assert len(server.requests) == 2


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
    assert sum(waits_s) < 9


@pytest.mark.parametrize(
    "url", ["s3://bucket/x.zip", "http://", "x.zip", "http://h:port/x", "http://[::1/x", "http://a b/"]
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
    assert "download fetching" in err
    assert "of=40,000" in err
