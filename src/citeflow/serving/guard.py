"""The outermost layer of a server: limits of a request, its id, its line in the log, its metrics.

Whatever goes wrong below ends as one problem, never as a traceback.
"""

import asyncio
import json
import re
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from citeflow.serving.metrics import RequestMetrics
from citeflow.serving.problems import ProblemError
from citeflow.utils.logging import log

MAX_BODY_BYTES = 1 << 20
"""Of a request, where its task allows no more."""

BODY_TIMEOUT_S = 10.0
"""Time for the whole body of a request to arrive."""

REQUEST_ID = "request_id"
"""Key of the id of a request in its scope."""

_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)

QUIET = ("/v2/health/live", "/v2/health/ready", "/metrics")
"""Routes that are asked all the time, and logged where they fail only."""


class Guard:
    """An ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: RequestMetrics,
        admit: Callable[[Scope], Awaitable[None]] | None = None,
        is_streamed: Callable[[Scope], bool] = lambda scope: False,
        max_body_bytes: Callable[[], int] = lambda: MAX_BODY_BYTES,
        name: str = "serve",
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        """Wrap an application.

        Args:
            app: the application.
            metrics: where requests are counted.
            admit: raises a ProblemError where a request is refused before its body is read.
            is_streamed: tells the requests whose body the application reads and limits itself.
            max_body_bytes: returns the size of any other body, by what is served.
            name: of the server in its log.
            body_timeout_s: time for it to arrive as a whole.
        """
        self._app = app
        self._metrics = metrics
        self._admit = admit
        self._is_streamed = is_streamed
        self._max_body_bytes = max_body_bytes
        self._name = name
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(Headers(scope=scope))
        scope[REQUEST_ID] = request_id
        sent = {"status": 0, "bytes": 0}

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            else:
                sent["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            if self._admit is not None:
                await self._admit(scope)
            body = receive if self._is_streamed(scope) else self._body(scope, receive)
            await self._app(scope, body, send_counted)
        except ClientDisconnect:  # nobody waits for an answer
            return
        except Exception as error:
            if isinstance(error, ProblemError):
                problem = error
            else:
                problem = _unexpected(self._name, error, request_id)
            if not sent["status"]:
                await problem.response(request_id)(scope, receive, send_counted)
        finally:
            self._note(scope, request_id, sent, time.perf_counter() - began)

    def _body(self, scope: Scope, receive: Receive) -> "_Body":
        return _Body(
            Headers(scope=scope),
            receive,
            max_bytes=self._max_body_bytes(),
            timeout_s=self._body_timeout_s,
        )

    def _note(self, scope: Scope, request_id: str, sent: dict[str, int], seconds: float) -> None:
        """Count the request, and print its line."""
        route = getattr(scope.get("route"), "path", "none")
        status = sent["status"] or 499  # as nginx writes where the client has gone
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if route in QUIET and status == HTTPStatus.OK:
            return
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": request_id,
            "method": scope["method"],
            "path": scope["path"][:200],
            "route": route,
            "status": status,
            "ms": round(1e3 * seconds, 2),
            "bytes": sent["bytes"],
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


class _Body:
    """Receives the whole body of a request at once, within limits, when a route asks for it."""

    def __init__(
        self, headers: Headers, receive: Receive, *, max_bytes: int, timeout_s: float
    ) -> None:
        self._headers = headers
        self._receive = receive
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._is_read = False

    async def __call__(self) -> Message:
        """Return the body, and behind it what the connection says.

        Raises:
            ProblemError: it is too large, or too slow.
        """
        if self._is_read:
            return await self._receive()
        self._is_read = True
        length = self._headers.get("content-length", "0")
        if length.isdecimal() and len(length) < 20:
            self._check_size(int(length))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._read()
        except TimeoutError:
            raise ProblemError(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the body did not arrive within {self._timeout_s:g} s",
                headers={"Connection": "close"},
            ) from None

    async def _read(self) -> Message:
        body = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return message
            body += message.get("body", b"")
            self._check_size(len(body))
            if not message.get("more_body"):
                return {"type": "http.request", "body": bytes(body), "more_body": False}

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._max_bytes:
            raise ProblemError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has more than {self._max_bytes:,} bytes",
                hint="ask for less at a time",
                headers={"Connection": "close"},
            )


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def _unexpected(name: str, error: Exception, request_id: str) -> ProblemError:
    """Log a bug with its traceback, of which the client sees nothing."""
    log(name, "failed", request_id=request_id, error=type(error).__name__)
    traceback.print_exception(error, file=sys.stderr)
    return ProblemError(
        HTTPStatus.INTERNAL_SERVER_ERROR, "the server failed", hint="its log has the request's id"
    )
