"""Everything that the routes share, and who asks."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Header, Request, Response

from citeflow.platform.accounts import Account, Accounts
from citeflow.platform.backends.base import Backend, RunState
from citeflow.platform.environments import Environments
from citeflow.platform.events import Feeds
from citeflow.platform.gateway import Gateway
from citeflow.platform.identities import Identities
from citeflow.platform.models import Models, Seconds
from citeflow.platform.queue import Queue
from citeflow.platform.runs import Runs
from citeflow.platform.store import Store, TableRow
from citeflow.platform.trying import IDLE_S, TryIt
from citeflow.platform.uploads import INSPECTIONS_AT_A_TIME, Uploads
from citeflow.serving.problems import ProblemError

if TYPE_CHECKING:
    from citeflow.platform.oidc import Provider

COOKIE = "citeflow_session"

MAX_KEY = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """The parts of a platform."""

    url: str
    """Where people reach it, such as https://citeflow.example.org; without a path."""

    store: Store
    accounts: Accounts
    backend: Backend
    queue: Queue
    environments: Environments
    uploads: Uploads
    runs: Runs
    feeds: Feeds
    models: Models
    seconds: Seconds
    trying: TryIt
    oidc: "Provider | None"
    identities: Identities
    gateway: Gateway | None

    @classmethod
    def of(
        cls,
        store: Store,
        backend: Backend,
        url: str,
        oidc: "Provider | None" = None,
        idle_s: float = IDLE_S,
    ) -> "Services":
        """Put the parts together over a database and a backend."""
        accounts = Accounts(store)
        environments = Environments(store, accounts, backend)
        models = Models(store, backend)
        seconds = Seconds()

        def ended(row: TableRow, state: RunState) -> None:
            models.register(row, state)
            runs.ended(row, state)

        queue = Queue(store, backend, ended)
        identities = Identities(store, may_create=bool(oidc and oidc.settings.create_users))
        gateway = None
        if oidc is not None and oidc.settings.gateway_client_id:
            gateway = Gateway(oidc, identities, accounts)
        turns = asyncio.Semaphore(INSPECTIONS_AT_A_TIME)
        uploads = Uploads(store, backend, environments, turns)
        runs = Runs(store, backend, queue, environments, uploads)
        return cls(
            url=url,
            store=store,
            accounts=accounts,
            backend=backend,
            queue=queue,
            environments=environments,
            uploads=uploads,
            runs=runs,
            feeds=Feeds(runs),
            models=models,
            seconds=seconds,
            trying=TryIt(models, seconds, idle_s=idle_s),
            oidc=oidc,
            identities=identities,
            gateway=gateway,
        )

    @property
    def is_secure(self) -> bool:
        """True if browsers reach it by https alone."""
        return urlsplit(self.url).scheme == "https"

    @property
    def oidc_name(self) -> str:
        """Name of the identity provider through which people log in; empty where there is none."""
        return self.oidc.settings.name if self.oidc and self.oidc.settings.client_id else ""

    def who_asks(self, request: Request) -> Account | None:
        """Return who asks, by what a gateway says, else by a session; None where nobody does.

        Raises:
            ProblemError: what the gateway says is not proved.
        """
        if self.gateway is not None:
            account = self.gateway.account(request.headers, address(request))
            if account is not None:
                return account
        return self.accounts.of_session(request.cookies.get(COOKIE, ""))

    def set_cookie(self, response: Response, token: str) -> None:
        """Log a browser in; an empty token logs it out."""
        response.set_cookie(
            COOKIE,
            token,
            max_age=None if token else 0,
            path="/",
            httponly=True,
            samesite="strict",
            secure=self.is_secure,
        )


def services(request: Request) -> Services:
    """Return what the routes share."""
    shared: Services = request.app.state.services
    return shared


Shared = Annotated[Services, Depends(services)]


def logged_in(request: Request, shared: Shared) -> Account:
    """Return who asks.

    Raises:
        ProblemError: nobody is logged in.
    """
    account = shared.who_asks(request)
    if account is None:
        raise ProblemError(HTTPStatus.UNAUTHORIZED, "not logged in")
    return account


User = Annotated[Account, Depends(logged_in)]


def admin(account: User) -> Account:
    """Return who asks.

    Raises:
        ProblemError: it is no admin.
    """
    if not account.is_admin:
        raise ProblemError(HTTPStatus.FORBIDDEN, "only for admins")
    return account


Admin = Annotated[Account, Depends(admin)]

Key = Annotated[str, Header(alias="Idempotency-Key", max_length=MAX_KEY)]
"""A repeated request with the same key changes nothing more."""


def address(request: Request) -> str:
    """Return the address of a client, as its connection says."""
    return request.client.host if request.client else ""
