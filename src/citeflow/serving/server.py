"""The server process: one event loop, a few threads, a graceful end."""

import os
import socket
from dataclasses import dataclass

import torch
import uvicorn

from citeflow.errors import UnavailableError
from citeflow.serving.app import Limits, create_app
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source
from citeflow.utils.logging import log

GRACE_S = 15
"""Time for requests that are under way when the server is told to end."""

BACKLOG = 1_024


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where the server listens."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any that is free."""

    def bind(self) -> socket.socket:
        """Return a socket that listens there.

        Raises:
            UnavailableError: the address is in use, or not this machine's.
        """
        try:
            family, kind, _, _, where = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # asyncio sends small answers at once (TCP_NODELAY) where the protocol is named alone;
            # else each waits 40 ms for an acknowledgement.
            listener = socket.socket(family, kind, socket.IPPROTO_TCP)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(where)
                listener.listen(BACKLOG)
            except OSError:
                listener.close()
                raise
            return listener
        except OSError as error:
            is_name = isinstance(error, socket.gaierror)  # whose numbers are of another list
            reason = error.strerror if is_name else os.strerror(error.errno or 0)
            hint = "another --host or --port"
            raise UnavailableError(
                f"cannot listen there ({reason})", f"{self.host}:{self.port}", hint=hint
            ) from None


class Server(uvicorn.Server):
    """A uvicorn server that a signal ends well: it does not raise the signal again behind it."""

    def __init__(self, holder: IndexHolder, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._holder = holder

    def handle_exit(self, sig: int, frame: object) -> None:
        """Be ready no more, and end when what is under way is answered; at once if asked twice."""
        self._holder.leave()
        self.force_exit = self.should_exit
        self.should_exit = True


def serve(source: Source, address: Address, limits: Limits, *, torch_threads: int = 1) -> None:
    """Answer requests until a signal ends the process.

    The server listens before the index is open, which may take seconds, and is ready behind that.

    Args:
        source: of the index.
        address: where to listen.
        limits: what it takes on.
        torch_threads: threads that compute one answer. One paper is too little work for several,
            which would compete with those of other requests and with the event loop.

    Raises:
        CiteflowError: the index cannot be opened, or the address is in use.
    """
    failed: list[Exception] = []
    metrics = ServerMetrics()

    def end(error: Exception) -> None:
        failed.append(error)
        server.should_exit = True

    torch.set_num_threads(torch_threads)
    holder = IndexHolder(source, metrics, on_error=end)
    server = Server(holder, make_config(create_app(holder, metrics, limits)))
    with address.bind() as listener:
        host, port = listener.getsockname()[:2]
        log("serve", "listening", url=f"http://{host}:{port}")
        server.run(sockets=[listener])
    if failed:
        raise failed[0]
    log("serve", "ended")


def make_config(app: object) -> uvicorn.Config:
    """Return uvicorn's settings for an application."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACE_S,
    )
