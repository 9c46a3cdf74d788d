"""The HTTP side of the in-memory API server: paths, verbs, answers, streams."""

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from .kube_objects import ApiError, is_set, status_of

VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/(?!status$|finalize$)))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    number: int
    """From 1."""
    at: float
    """Seconds, `time.monotonic`."""
    method: str
    path: str
    query: dict[str, str]
    content_type: str
    body: Any
    verb: str
    """As RBAC names it."""
    group: str = ""
    version: str = ""
    resource: str = ""
    """With its subresource, as in pods/log; empty for paths that are no resource."""
    namespace: str = ""
    name: str = ""


class Dropped(Exception):  # noqa: N818
    """The connection is to end here and now, without another word."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """An answer without an end, sent as it comes; raises Dropped inside to end abruptly."""

    content_type: str
    parts: Iterator[str]


def parse(number: int, method: str, target: str, content_type: str, body: Any) -> Request:
    """Say which resource a request is about, and the verb that a Role must grant for it."""
    url = urlsplit(target)
    query = dict(parse_qsl(url.query))
    verb = VERBS.get(method, method.lower())
    common = {"number": number, "at": time.monotonic(), "method": method, "path": url.path}
    common |= {"query": query, "content_type": content_type, "body": body}
    found = PATH.fullmatch(url.path)
    if not found:
        return Request(verb=verb, **common)
    if verb == "get" and not found["name"]:
        verb = "watch" if is_set(query, "watch") else "list"
    if verb == "delete" and not found["name"]:
        verb = "deletecollection"
    resource = f"{found['plural']}/{found['sub']}" if found["sub"] else found["plural"]
    name = found["name"] or _name_in(body)
    place = {
        "group": found["group"] or "",
        "version": found["core"] or found["version"],
        "resource": resource,
    }
    return Request(verb=verb, namespace=found["namespace"] or "", name=name, **place, **common)


def _name_in(body: Any) -> str:
    meta = body.get("metadata") if isinstance(body, dict) else None
    return str(meta.get("name") or "") if isinstance(meta, dict) else ""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, api: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api
        self.connections: set[socket.socket] = set()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        return not self.api.is_refused()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the handler has kept what is worth telling

    def end_connections(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    # Without it each answer of two packets waits for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, Dropped):
            self.close_connection = True
        except Exception as error:
            self.close_connection = True
            self.server.api.errors.append(error)

    def log_message(self, *_: object) -> None:
        pass

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.api.answer(
            self.command, self.path, self.headers.get("Content-Type", ""), body
        )
        if isinstance(answer, Stream):
            self._stream(answer)
        else:
            self._send(*answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _do

    def _send(self, code: int, content: Any, headers: dict[str, str]) -> None:
        is_text = isinstance(content, str)
        body = content.encode() if is_text else json.dumps(content).encode()
        self.send_response_only(code)
        self.send_header(
            "Content-Type", "text/plain; charset=utf-8" if is_text else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, stream: Stream) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", stream.content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.closing(stream.parts):
            for part in stream.parts:
                data = part.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


def error_event(error: ApiError) -> str:
    return (
        json.dumps({"type": "ERROR", "object": status_of(error.code, error.message, error.reason)})
        + "\n"
    )
