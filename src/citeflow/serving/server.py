"""The server process: one event loop, a few threads, a graceful end."""

import torch
import uvicorn

from citeflow.serving.app import Limits, create_app
from citeflow.serving.listening import Address, make_config
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source
from citeflow.utils.logging import log
from citeflow.utils.system import num_cores


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


def serve(source: Source, address: Address, limits: Limits) -> None:
    """Answer requests until a signal ends the process.

    The server listens before the index is open, which may take seconds, and is ready behind that.

    Args:
        source: of the index.
        address: where to listen.
        limits: what it takes on.

    Raises:
        CiteflowError: the index cannot be opened, or the address is in use.
    """
    failed: list[Exception] = []
    metrics = ServerMetrics()

    def end(error: Exception) -> None:
        failed.append(error)
        server.should_exit = True

    torch.set_num_threads(max(1, num_cores() // limits.threads))
    holder = IndexHolder(source, metrics, on_error=end)
    server = Server(holder, make_config(create_app(holder, metrics, limits)))
    with address.bind() as listener:
        host, port = listener.getsockname()[:2]
        log("serve", "listening", url=f"http://{host}:{port}")
        server.run(sockets=[listener])
    if failed:
        raise failed[0]
    log("serve", "ended")
