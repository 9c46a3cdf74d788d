"""The server process of the platform."""

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from citeflow import files
from citeflow.errors import ConfigError
from citeflow.platform.app import create_app
from citeflow.platform.backends.base import Backend
from citeflow.platform.gate import is_loopback
from citeflow.platform.services import Services
from citeflow.platform.store import Store
from citeflow.platform.trying import IDLE_S
from citeflow.serving.listening import Address, Server, make_config
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.platform.oidc import Provider

LOCK = "platform.lock"
EVERYWHERE = ("", "0.0.0.0", "::")
"""Hosts to listen at that are no name."""


def serve(
    data: Path,
    address: Address,
    backend: Backend,
    *,
    url: str = "",
    database: str = "",
    oidc: "Provider | None" = None,
    idle_s: float = IDLE_S,
) -> None:
    """Answer requests until a signal ends the process; runs go on.

    Args:
        data: folder of the server, and on one machine of everything that users have.
        address: where to listen.
        backend: where runs take place.
        url: where people reach the server; by default the address.
        database: URL of the database; by default one in `data`.
        oidc: identity provider through which people log in too.
        idle_s: time without a question after which a model gives its memory back.

    Raises:
        ConfigError: the URL is none.
        UnavailableError: the address is in use, another server has the folder, or the database
            does not answer.
    """
    if url:
        check_url(url)
    elif address.host in EVERYWHERE:
        hint = "--url names the server as people reach it"
        raise ConfigError("not a name of the server", address.host, hint=hint)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with files.exclusive(data / LOCK), address.bind() as listener:
        port = listener.getsockname()[1]
        host = f"[{address.host}]" if ":" in address.host else address.host
        reached = url.rstrip("/") or f"http://{host}:{port}"
        if reached.startswith("http://") and not is_loopback(urlsplit(reached).hostname or ""):
            log("platform", "passwords cross the network in the clear", hint="--url https://...")
        store = Store(database) if database else Store.of_folder(data)
        services = Services.of(store, backend, reached, oidc, idle_s)
        facts = {"url": reached}
        if services.accounts.need_first():
            facts["setup"] = f"{reached}/setup?token={services.accounts.first_link()}"
            log("platform", "open this to make the first account", url=facts["setup"])
        emit(facts)
        log("platform", "listening", url=reached)
        server = Server(make_config(create_app(services)), services.feeds.leave)
        server.run(sockets=[listener])
        store.close()
    log("platform", "ended")


def check_url(url: str) -> None:
    """Check the URL by which people reach a server.

    Raises:
        ConfigError: it is none, or has a path.
    """
    parts = urlsplit(url)
    is_right = parts.scheme in ("http", "https") and parts.hostname and not parts.path.strip("/")
    if not is_right or parts.query or parts.fragment or parts.username:
        raise ConfigError("not the URL of a server", url, hint="such as https://citeflow.lab.org")
