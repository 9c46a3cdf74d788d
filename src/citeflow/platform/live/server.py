"""The server in the process of a page: it ends some time after its stdin does."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from citeflow.platform.events import Feeds
from citeflow.platform.live.app import Keys, Live, create_app
from citeflow.platform.live.run import LiveRun
from citeflow.platform.live.shown import Order
from citeflow.serving.listening import Server, make_config
from citeflow.utils import records
from citeflow.utils.logging import log

HOST = "127.0.0.1"

BROWSER = "import sys, webbrowser; webbrowser.open(sys.stdin.read())"
"""Some browsers hold up who starts them, and all print what no terminal should get."""

BROWSER_S = 10.0
"""Time for a browser to start; nobody waits for it longer."""

QUIET_S = 2.0
"""Time without a request after which the pages have all that they wanted."""

END_S = 3.0
"""Time for the server to end, after which its process does."""

POLL_S = 0.1


def serve(listener: int) -> None:
    """Serve a page until the command that has ordered it ends, and the pages know how.

    Args:
        listener: descriptor of the socket.
    """
    order = records.load(Order, json.loads(sys.stdin.readline()))
    with socket.socket(fileno=listener) as sock:
        port = sock.getsockname()[1]
        keys = Keys(port=port, token=order.token, ticket=order.ticket)
        run = LiveRun(order.shown)
        live = Live(run=run, keys=keys, feeds=Feeds(run))
        url = f"http://{HOST}:{port}"
        server = Server(make_config(create_app(live, url)), live.feeds.leave)
        watcher = threading.Thread(target=_end, args=(server, live, order.grace_s), daemon=True)
        watcher.start()
        if order.ticket:
            _open_browser(f"{url}/?token={order.ticket}")
        server.run(sockets=[sock])


def _open_browser(url: str) -> None:
    """Start a browser, the address out of sight."""
    try:
        browser = subprocess.Popen(
            [sys.executable, "-P", "-c", BROWSER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
    except OSError as error:
        log("run", "no browser", because=error)
        return
    assert browser.stdin is not None
    with browser.stdin as stdin:
        stdin.write(url)


def _end(server: Server, live: Live, grace_s: float) -> None:
    """End the server some time after the command: soon where nobody looks any more."""
    began = time.monotonic()
    sys.stdin.read()

    def is_needed() -> bool:
        if live.visits.last is None:  # the browser may be about to come
            return bool(live.keys.ticket) and time.monotonic() - began < BROWSER_S
        return not live.visits.are_over(QUIET_S)

    _wait_while(is_needed, grace_s)
    live.feeds.leave()
    server.should_exit = True
    time.sleep(END_S)
    os._exit(0)


def _wait_while(is_true: Callable[[], bool], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and is_true():
        time.sleep(POLL_S)
