"""The server process: one event loop, a few threads, a graceful end."""

import torch

from citeflow.serving.app import Limits, create_app
from citeflow.serving.listening import Address, Server, make_config
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source
from citeflow.utils.logging import log
from citeflow.utils.system import num_cores


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
    server = Server(make_config(create_app(holder, metrics, limits)), holder.leave)
    with address.bind() as listener:
        host, port = listener.getsockname()[:2]
        log("serve", "listening", url=f"http://{host}:{port}")
        server.run(sockets=[listener])
    if failed:
        raise failed[0]
    log("serve", "ended")
