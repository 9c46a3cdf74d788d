"""Where a server listens, and how uvicorn runs it."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from citeflow.errors import UnavailableError

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

    def __init__(self, config: uvicorn.Config, on_exit: Callable[[], None]) -> None:
        """Take the settings.

        Args:
            config: as `make_config` makes it.
            on_exit: called when the server is told to end.
        """
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: object) -> None:
        """End when what is under way is answered; at once if asked twice."""
        self._on_exit()
        self.force_exit = self.should_exit
        self.should_exit = True


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
