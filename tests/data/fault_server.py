"""A web server on loopback that serves one file and misbehaves by script, one entry per request."""

import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Handler"], None]
LOGIN_PAGE = b"<!doctype html><title>Log in</title>"


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
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://127.0.0.1:{self.server_address[1]}/file.zip"

    @property
    def ranges(self) -> list[str | None]:
        """The ranges that were requested."""
        return [headers.get("Range") for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: FaultServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.num_faults += bool(self.server.script)
        fault = self.server.script.pop(0) if self.server.script else cut_after(1 << 40)
        with contextlib.suppress(ConnectionError):
            fault(self)

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.server.sent_bytes += len(body)


def cut_after(num_bytes: int) -> Fault:
    """Serve as asked, but close the connection after some bytes."""

    def fault(handler: Handler) -> None:
        server = handler.server
        match = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        is_same = handler.headers.get("If-Range", server.etag) == server.etag
        offset = int(match[1]) if match and is_same else 0
        size = len(server.content)
        headers = {"Content-Length": str(size - offset)}
        if server.etag:
            headers["ETag"] = server.etag
        if offset:
            headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
        body = server.content[offset : offset + num_bytes]
        handler.answer(206 if offset else 200, headers, body)

    return fault


def stall_after(num_bytes: int) -> Fault:
    def fault(handler: Handler) -> None:
        cut_after(num_bytes)(handler)
        handler.server.closing.wait(30)

    return fault


def drip(handler: Handler) -> None:
    """One byte at a time, each well before any timeout."""
    handler.answer(200, {"Content-Length": str(len(handler.server.content))})
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b"x")


def send(status: int, body: bytes = b"", **headers: str) -> Fault:
    """A fixed answer; without Content_Length the end of the connection ends it."""
    return lambda handler: handler.answer(status, headers, body)


def first_bytes(num_bytes: int, *, declared: bool) -> Fault:
    """The first bytes, as if they were all."""
    headers = {"Content-Length": str(num_bytes)} if declared else {}
    return lambda handler: handler.answer(200, headers, handler.server.content[:num_bytes])


def half_a_chunk(handler: Handler) -> None:
    """A chunked body that ends inside a chunk."""
    handler.protocol_version = "HTTP/1.1"
    headers = {"Transfer-Encoding": "chunked", "Connection": "close"}
    handler.answer(200, headers, b"ff\r\nonly a part")
    handler.close_connection = True


@contextlib.contextmanager
def serving(content: bytes, *, tls: ssl.SSLContext | None = None) -> Iterator[FaultServer]:
    with FaultServer(content) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join(10)
