"""A web server on loopback that serves one file and misbehaves by script, one entry per request."""

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], None]


class FaultServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.etag = '"one"'
        self.script: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.sent_bytes = 0
        self.num_faults = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.zip"


class Handler(BaseHTTPRequestHandler):
    server: FaultServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.num_faults += bool(self.server.script)
        fault = self.server.script.pop(0) if self.server.script else serve
        with contextlib.suppress(ConnectionError):
            fault(self)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.server.sent_bytes += len(body)

    def wanted_offset(self) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        is_same = self.headers.get("If-Range", self.server.etag) == self.server.etag
        return int(found[1]) if found and is_same else 0

    def head_of(self, offset: int) -> tuple[int, dict[str, str]]:
        size = len(self.server.content)
        headers = {"Content-Length": str(size - offset)}
        if self.server.etag:
            headers["ETag"] = self.server.etag
        if not offset:
            return 200, headers
        return 206, {**headers, "Content-Range": f"bytes {offset}-{size - 1}/{size}"}


def serve(handler: Handler) -> None:
    cut_after(1 << 40)(handler)


def cut_after(num_bytes: int) -> Fault:
    def fault(handler: Handler) -> None:
        offset = handler.wanted_offset()
        handler.answer(
            *handler.head_of(offset), handler.server.content[offset : offset + num_bytes]
        )

    return fault


def declared_short(num_bytes: int) -> Fault:
    """The first bytes with a Content-Length as if they were all."""

    def fault(handler: Handler) -> None:
        handler.answer(200, {"Content-Length": str(num_bytes)}, handler.server.content[:num_bytes])

    return fault


def undeclared(num_bytes: int) -> Fault:
    """The first bytes without a word on how many there should be."""
    return lambda handler: handler.answer(200, {}, handler.server.content[:num_bytes])


def stall_after(num_bytes: int) -> Fault:
    def fault(handler: Handler) -> None:
        cut_after(num_bytes)(handler)
        handler.server.closing.wait(30)

    return fault


def drip(handler: Handler) -> None:
    """One byte at a time, each well before any timeout."""
    handler.answer(*handler.head_of(0))
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"x")


def whole_again(handler: Handler) -> None:
    """Takes no notice of a range."""
    handler.answer(
        200, {"Content-Length": str(len(handler.server.content))}, handler.server.content
    )


def status(code: int, **headers: str) -> Fault:
    return lambda handler: handler.answer(
        code, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def partial(content_range: str, body: bytes) -> Fault:
    headers = {"Content-Range": content_range, "Content-Length": str(len(body))}
    return lambda handler: handler.answer(206, headers, body)


def page(handler: Handler) -> None:
    body = b"<!doctype html><title>Log in</title>"
    handler.answer(200, {"Content-Length": str(len(body)), "Content-Type": "text/html"}, body)


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[FaultServer]:
    with FaultServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join(10)
