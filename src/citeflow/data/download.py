"""Downloads that resume, end in bounded time, and are accepted only whole.

What has come so far lies in `<target>.part`; `<target>.part.json` remembers which file on the server it belongs to, so
that another process can continue it. Nobody is ever asked anything.
"""

import http.client
import re
import ssl
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit

from citeflow import files
from citeflow.errors import CiteflowError, DataError, NotFoundError, UnavailableError
from citeflow.utils.logging import log, redact_url

READ_BYTES = 1 << 18
LOG_EVERY_S = 5.0
LONGEST_WAIT_S = 60.0

SLOWEST_BYTES_PER_S = 1024
"""A server that sends less than this over a whole timeout counts as stalled."""

FAIR_PROGRESS_BYTES = 8 << 20
"""An attempt that brought this much does not count as a failed one: a large file may be cut many times."""

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_GONE = {404, 410}
_PASSING = {408, 416, 425, 429}


class _RetryError(Exception):
    """The attempt failed in a way that another one may mend."""

    def __init__(self, reason: object, *, wait_s: float = 0.0) -> None:
        super().__init__(str(reason) or type(reason).__name__)
        self.wait_s = wait_s


@dataclass(frozen=True, kw_only=True, slots=True)
class _Job:
    url: str
    part: Path
    timeout_s: float

    @property
    def note(self) -> Path:
        return self.part.with_name(self.part.name + ".json")


def fetch(
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    timeout_s: float = 30.0,
    attempts: int = 5,
    wait_s: float = 0.4,
) -> str:
    """Bring what an http(s) or file URL names into a file, and return its sha256 in hex.

    Whoever calls it sees to it that no other process does so for the same target.

    Args:
        url: proxies are taken from the environment, as usual.
        target: appears only when everything has come and has the right digest.
        sha256: the digest that is expected; a target that has it already is left alone.
        timeout_s: longest time without an answer.
        attempts: how many attempts in a row may fail.
        wait_s: pause before the second attempt; it doubles before each further one, up to a minute.

    Raises:
        NotFoundError: there is nothing under this URL.
        UnavailableError: the server does not deliver.
        DataError: the digest is another one; the download is removed.
    """
    if sha256 and target.is_file() and files.sha256_of_file(target) == sha256.lower():
        return sha256.lower()
    job = _Job(url=url, part=target.with_name(target.name + ".part"), timeout_s=timeout_s)
    scheme = _scheme(url)
    if scheme == "file":
        _copy(job)
    else:
        _download(job, attempts, wait_s)
    return _accept(job, target, sha256)


def local_path(url: str) -> Path:
    """The path that a file URL names."""
    return Path(urllib.request.url2pathname(urlsplit(url).path))


def _scheme(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "file" or (
            parts.scheme in ("http", "https") and bool(parts.hostname)
        )
    except ValueError:
        usable = False
    if not usable:
        raise NotFoundError(
            "not a URL that can be fetched",
            redact_url(url),
            hint="it must begin with http://, https:// or file://",
        )
    return parts.scheme


def _copy(job: _Job) -> None:
    source = local_path(job.url)
    if not source.is_file():
        raise NotFoundError("no such file", source)
    _discard(job)
    files.copy_file(source, job.part)


def _download(job: _Job, attempts: int, wait_s: float) -> None:
    failures = 0
    while True:
        before_bytes = _size_bytes(job.part)
        try:
            return _attempt(job)
        except _RetryError as retry:
            progressed = _size_bytes(job.part) - before_bytes >= FAIR_PROGRESS_BYTES
            failures = 1 if progressed else failures + 1
            if failures >= attempts:
                raise _unavailable(
                    job, str(retry), "what has come so far is kept; run it again to continue"
                ) from None
            pause_s = min(max(wait_s * 2 ** (failures - 1), retry.wait_s), LONGEST_WAIT_S)
            log("download", "waiting", reason=retry, seconds=pause_s, failures=failures)
            time.sleep(pause_s)


def _attempt(job: _Job) -> None:
    known = _known(job)
    offset = _size_bytes(job.part)
    if offset and offset == known.get("size_bytes"):
        return
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and (validator := known.get("etag") or known.get("modified")):
        headers["If-Range"] = validator
    with _open(job, headers) as response:
        if response.status == 206 and _continues(response, offset, known):
            _receive(job, response, offset)
        elif response.status == 200:
            _discard(job)
            files.write_json(job.note, _describe(job, response))
            _receive(job, response, 0)
        else:
            _discard(job)
            raise _RetryError(f"HTTP {response.status} with another range than asked for")


def _known(job: _Job) -> dict[str, Any]:
    """What the note says of the part; a part that nothing vouches for is thrown away."""
    try:
        known: dict[str, Any] = files.read_json(job.note)
        if known["url"] == job.url and any(
            known[name] for name in ("etag", "modified", "size_bytes")
        ):
            return known
    except (CiteflowError, KeyError, TypeError):
        pass
    _discard(job)
    return {}


def _describe(job: _Job, response: http.client.HTTPResponse) -> dict[str, Any]:
    etag = response.headers.get("ETag", "")
    return {
        "url": job.url,
        "etag": "" if etag.startswith("W/") else etag,
        "modified": response.headers.get("Last-Modified", ""),
        "size_bytes": _length(response),
    }


def _continues(response: http.client.HTTPResponse, offset: int, known: dict[str, Any]) -> bool:
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not offset or not found or int(found[1]) != offset:
        return False
    answers = (
        (found[2].strip("*"), known["size_bytes"]),
        (response.headers.get("ETag"), known["etag"]),
    )
    return all(not new or not old or new == str(old) for new, old in answers)


def _open(job: _Job, headers: dict[str, str]) -> http.client.HTTPResponse:
    try:
        request = urllib.request.Request(job.url, headers=headers)
        return cast(http.client.HTTPResponse, _opener().open(request, timeout=job.timeout_s))
    except HTTPError as error:
        with error:
            raise _refused(job, error) from None
    except (http.client.InvalidURL, ValueError):
        raise NotFoundError("not a URL that can be fetched", redact_url(job.url)) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise _unavailable(
                job, reason.verify_message, "the certificate is not trusted on this machine"
            ) from None
        raise _RetryError(reason) from None


def _opener() -> urllib.request.OpenerDirector:
    """Plain http(s) with proxies and redirects: a redirect must not reach ftp, data or local files."""
    opener = urllib.request.OpenerDirector()
    for kind in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(kind())
    opener.addheaders = [("User-Agent", "citeflow")]
    return opener


def _refused(job: _Job, error: HTTPError) -> Exception:
    if error.code in _GONE:
        return NotFoundError("nothing under this URL", f"{redact_url(job.url)} (HTTP {error.code})")
    if error.code < 500 and error.code not in _PASSING:
        kind = "redirects that lead nowhere" if error.code < 400 else "the server refuses"
        return _unavailable(
            job,
            f"HTTP {error.code}, {kind}",
            "open the URL in a browser; set https_proxy if needed",
        )
    if error.code == 416:
        _discard(job)
    wait = str(error.headers.get("Retry-After", ""))
    return _RetryError(f"HTTP {error.code}", wait_s=float(wait) if wait.isdecimal() else 0.0)


def _unavailable(job: _Job, reason: str, hint: str) -> UnavailableError:
    return UnavailableError("cannot download", f"{redact_url(job.url)}: {reason}", hint=hint)


def _receive(job: _Job, response: http.client.HTTPResponse, offset: int) -> None:
    total_bytes = _total_bytes(response, offset)
    files.save_chunks(job.part, _chunks(job, response, offset, total_bytes), append=offset > 0)
    if total_bytes is not None and _size_bytes(job.part) != total_bytes:
        raise _RetryError(f"cut after {_size_bytes(job.part):,} of {total_bytes:,} bytes")


def _chunks(
    job: _Job, response: http.client.HTTPResponse, done: int, total_bytes: int | None
) -> Iterator[bytes]:
    logged_s = checked_s = time.monotonic()
    checked_bytes = done
    while chunk := _read(response):
        yield chunk
        done, now_s = done + len(chunk), time.monotonic()
        if now_s - logged_s >= LOG_EVERY_S:
            log(
                "download",
                "fetching",
                url=redact_url(job.url),
                bytes=done,
                of=total_bytes or "?",
            )
            logged_s = now_s
        if now_s - checked_s >= job.timeout_s:
            if done - checked_bytes < SLOWEST_BYTES_PER_S * (now_s - checked_s):
                raise _RetryError(f"less than {SLOWEST_BYTES_PER_S} bytes/s")
            checked_s, checked_bytes = now_s, done


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(READ_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _RetryError(error) from None


def _length(response: http.client.HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length", "").strip()
    return int(text) if text.isdecimal() else None


def _total_bytes(response: http.client.HTTPResponse, offset: int) -> int | None:
    """Size of the whole file; an answer to a range may well stop before its end."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if offset and found and found[2] != "*":
        return int(found[2])
    length = _length(response)
    return None if length is None else offset + length


def _accept(job: _Job, target: Path, wanted: str | None) -> str:
    digest = files.sha256_of_file(job.part)
    if wanted and digest != wanted.lower():
        _discard(job)
        value = f"{redact_url(job.url)} has {digest}, expected {wanted.lower()}"
        raise DataError(
            "wrong sha256", value, hint="the download was removed; check the URL and the digest"
        )
    files.move_file(job.part, target)
    _discard(job)
    return digest


def _discard(job: _Job) -> None:
    job.part.unlink(missing_ok=True)
    job.note.unlink(missing_ok=True)


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
