"""Downloads that resume, end in bounded time, and are accepted only whole.

The bytes received so far lie in `<target>.part`; `<target>.part.json` records which file on the
server they belong to, so that another process can resume.

requests does the transport (TLS, proxies, redirects). Resuming, the bound on slow servers and the
retries are here: requests has none of the first two, and urllib3's `Retry` ends where the body of a
response begins, which is where large downloads fail.
"""

import functools
import http.client
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, LocationValueError

from citeflow import files
from citeflow.errors import CorruptError, DataError, NotFoundError, UnavailableError
from citeflow.utils import records
from citeflow.utils.logging import log, redact_url
from citeflow.utils.records import Record

READ_BYTES = 1 << 18
LOG_EVERY_S = 5.0
MAX_WAIT_S = 60.0
MAX_REDIRECTS = 10

MIN_BYTES_PER_S = 1024
"""A server that sends less than this over a whole timeout counts as stalled."""

PROGRESS_BYTES = 8 << 20
"""After this much, a failed attempt is the first one again: a large file may be cut many times."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_GONE = {404, 410}
_TRANSIENT = {408, 416, 425, 429}

_TRANSPORT_ERRORS = (requests.RequestException, HTTPError, OSError)
"""The body of a response is read from urllib3 itself, whose errors requests does not convert."""


class _TransientError(Exception):
    """An attempt failed in a way that the next one may not."""

    def __init__(self, reason: str, *, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _PartNote(Record):
    """Identity of the file that a part belongs to."""

    url: str
    etag: str
    modified: str
    size_bytes: int | None

    @property
    def can_resume(self) -> bool:
        """True if a changed file on the server would be noticed."""
        return bool(self.etag or self.modified or self.size_bytes)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Download:
    url: str
    part: Path
    timeout_s: float

    @property
    def note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")

    @property
    def received_bytes(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)

    def unavailable(self, reason: str, hint: str) -> UnavailableError:
        return UnavailableError("cannot download", f"{redact_url(self.url)}: {reason}", hint=hint)


class _HTTPSAdapter(HTTPAdapter):
    """Trusts the certificates of this machine besides those of certifi, which requests uses."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of connections, as the base class does."""
        super().init_poolmanager(*args, ssl_context=_ssl_context(), **kwargs)


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    return ssl.create_default_context()  # takes 20 ms


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    wait_s: float = 0.4,
) -> str:
    """Download what an http(s) or file URL names into a file, and return its sha256 in hex.

    The caller makes sure that no other process downloads to the same target.

    Args:
        url: proxies are taken from the environment, as usual.
        target: appears only when it is complete and has the right digest.
        sha256: the expected digest; a target that has it already is left alone.
        timeout_s: longest time without an answer.
        attempts: number of failed attempts in a row that end the download.
        wait_s: pause before the second attempt; it doubles before each further one, up to a minute.

    Raises:
        NotFoundError: there is nothing under this URL.
        UnavailableError: the server does not deliver.
        DataError: the digest is another one; the download is removed.
    """
    if sha256 and target.is_file() and files.sha256_of_file(target) == sha256.lower():
        return sha256.lower()
    part = target.with_name(target.name + ".part")
    download = _Download(url=url, part=part, timeout_s=timeout_s)
    if source := local_path(url):
        if not source.is_file():
            raise NotFoundError("no such file", source)
        download.discard()
        files.copy_file(source, download.part)
    else:
        _fetch_by_http(download, attempts, wait_s)
    return _accept(download, target, sha256)


def local_path(url: str) -> Path | None:
    """Return the path that a file URL names, or None for a URL of http(s).

    Raises:
        NotFoundError: it is neither.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme == "file":
            return Path(urllib.request.url2pathname(parts.path))
        is_http = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_http = False
    if not is_http:
        raise _not_a_url(url)
    return None


def _not_a_url(url: str) -> NotFoundError:
    hint = "it must begin with http://, https:// or file://"
    return NotFoundError("not a URL that can be fetched", redact_url(url), hint=hint)


def _fetch_by_http(download: _Download, attempts: int, wait_s: float) -> None:
    failures = 0
    with requests.Session() as session:
        # A session knows http and https only: no redirect leads to a file or another protocol.
        session.mount("https://", _HTTPSAdapter())
        session.max_redirects = MAX_REDIRECTS
        while True:
            received_bytes = download.received_bytes
            try:
                return _attempt(session, download)
            except _TransientError as error:
                progress_bytes = download.received_bytes - received_bytes
                failures = 1 if progress_bytes >= PROGRESS_BYTES else failures + 1
                if failures >= attempts:
                    hint = "what has come so far is kept; run it again to continue"
                    raise download.unavailable(str(error), hint) from None
                pause_s = min(max(wait_s * 2 ** (failures - 1), error.wait_s), MAX_WAIT_S)
                log("download", "waiting", reason=error, seconds=pause_s, failures=failures)
                time.sleep(pause_s)


def _attempt(session: requests.Session, download: _Download) -> None:
    """Request what is missing, and append it to the part, or start again."""
    note = _read_note(download)
    offset = download.received_bytes
    if note and offset and offset == note.size_bytes:
        return
    # A compressed answer would have other offsets and another digest than the file.
    headers = {"User-Agent": "citeflow", "Accept-Encoding": "identity"}
    if offset and note:
        headers["Range"] = f"bytes={offset}-"
        if validator := note.etag or note.modified:
            headers["If-Range"] = validator
    with _open(session, download, headers) as response:
        if response.status_code == 206 and note and _continues(response, offset, note):
            _receive(download, response, offset)
        elif response.status_code == 200:
            download.discard()
            etag = response.headers.get("ETag", "")
            note = _PartNote(
                url=download.url,
                # If-Range needs a strong validator (RFC 9110, 13.1.5).
                etag="" if etag.startswith("W/") else etag,
                modified=response.headers.get("Last-Modified", ""),
                size_bytes=_content_length(response),
            )
            files.write_json(download.note, note.model_dump())
            _receive(download, response, 0)
        else:
            download.discard()
            raise _TransientError(f"HTTP {response.status_code} with another range than requested")


def _read_note(download: _Download) -> _PartNote | None:
    """Read the note of a part; a part without a usable note is thrown away."""
    try:
        note = records.load(_PartNote, files.read_json(download.note), error=CorruptError)
        if note.url == download.url and note.can_resume:
            return note
    except (NotFoundError, CorruptError):
        pass
    download.discard()
    return None


def _continues(response: requests.Response, offset: int, note: _PartNote) -> bool:
    """True if a partial response starts at the offset and comes from the same file as the part."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not offset or not match or int(match[1]) != offset:
        return False
    etag = response.headers.get("ETag")
    has_same_etag = not etag or not note.etag or etag == note.etag
    has_same_size = match[2] == "*" or not note.size_bytes or int(match[2]) == note.size_bytes
    return has_same_etag and has_same_size


def _open(
    session: requests.Session, download: _Download, headers: dict[str, str]
) -> requests.Response:
    try:
        response = session.get(
            download.url, headers=headers, timeout=download.timeout_s, stream=True
        )
    except requests.exceptions.InvalidSchema:
        raise _refusal(download, "a redirect to another protocol") from None
    except requests.TooManyRedirects:
        raise _refusal(download, "redirects that lead nowhere") from None
    except (requests.exceptions.InvalidURL, LocationValueError):
        raise _not_a_url(download.url) from None
    except _TRANSPORT_ERRORS as error:
        cause = _root_cause(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            hint = "the certificate is not trusted on this machine"
            raise download.unavailable(cause.verify_message, hint) from None
        raise _TransientError(_message(cause)) from None
    except ValueError:  # of urllib.parse, about the target of a redirect
        raise _not_a_url(download.url) from None
    if response.status_code >= 300:
        with response:
            raise _failure(download, response)
    return response


def _failure(download: _Download, response: requests.Response) -> Exception:
    status = response.status_code
    if status in _GONE:
        value = f"{redact_url(download.url)} (HTTP {status})"
        return NotFoundError("nothing under this URL", value)
    if status < 500 and status not in _TRANSIENT:
        kind = "redirects that lead nowhere" if status < 400 else "the server refuses"
        return _refusal(download, f"HTTP {status}, {kind}")
    if status == 416:
        download.discard()
    retry_after = response.headers.get("Retry-After", "")
    wait_s = float(retry_after) if retry_after.isdecimal() else 0.0
    return _TransientError(f"HTTP {status}", wait_s=wait_s)


def _refusal(download: _Download, reason: str) -> UnavailableError:
    return download.unavailable(reason, "open the URL in a browser; set https_proxy if needed")


def _root_cause(error: BaseException) -> BaseException:
    """Return the system's error below those of requests and urllib3, which show the whole URL."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return error


def _message(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _receive(download: _Download, response: requests.Response, offset: int) -> None:
    total_bytes = _total_bytes(response, offset)
    chunks = _read_chunks(download, response, offset, total_bytes)
    files.save_chunks(download.part, chunks, append=offset > 0)
    received_bytes = download.received_bytes
    if total_bytes is not None and received_bytes != total_bytes:
        raise _TransientError(f"cut after {received_bytes:,} of {total_bytes:,} bytes")


def _read_chunks(
    download: _Download, response: requests.Response, done_bytes: int, total_bytes: int | None
) -> Iterator[bytes]:
    logged_s = checked_s = time.monotonic()
    checked_bytes = done_bytes
    while chunk := _read(response):
        yield chunk
        done_bytes += len(chunk)
        now_s = time.monotonic()
        if now_s - logged_s >= LOG_EVERY_S:
            url = redact_url(download.url)
            log("download", "downloading", url=url, bytes=done_bytes, of=total_bytes or "?")
            logged_s = now_s
        # The timeout of a socket starts again with every byte; a server that drips never meets it.
        if now_s - checked_s >= download.timeout_s:
            if done_bytes - checked_bytes < MIN_BYTES_PER_S * (now_s - checked_s):
                raise _TransientError(f"less than {MIN_BYTES_PER_S} bytes/s")
            checked_s = now_s
            checked_bytes = done_bytes


def _read(response: requests.Response) -> bytes:
    try:
        # What one read of the socket gives: iter_content would wait for a whole chunk, and lose
        # what it has of one when the connection breaks.
        return response.raw.read1(READ_BYTES, decode_content=False)
    except (*_TRANSPORT_ERRORS, http.client.HTTPException) as error:
        raise _TransientError(_message(_root_cause(error))) from None


def _content_length(response: requests.Response) -> int | None:
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isdecimal() else None


def _total_bytes(response: requests.Response, offset: int) -> int | None:
    """Return the size of the whole file; a partial response may well stop before its end."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if offset and match and match[2] != "*":
        return int(match[2])
    length = _content_length(response)
    return None if length is None else offset + length


def _accept(download: _Download, target: Path, expected: str | None) -> str:
    digest = files.sha256_of_file(download.part)
    if expected and digest != expected.lower():
        download.discard()
        value = f"{redact_url(download.url)} has {digest}, expected {expected.lower()}"
        hint = "the download was removed; check the URL and the digest"
        raise DataError("wrong sha256", value, hint=hint)
    files.move_file(download.part, target)
    download.discard()
    return digest
