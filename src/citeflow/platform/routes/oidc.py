"""Log-in through an identity provider, where the server has one.

The page asks for the address of the provider and goes there; the provider sends people back to the
page `/oidc`, which hands over what came with them. So each answer to a browser is one of the API,
and a log-in that another site began is refused as any other change is.
"""

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StrictStr

from citeflow.errors import CiteflowError
from citeflow.platform.routes.session import me_of
from citeflow.platform.schema import Me
from citeflow.platform.services import Services, Shared, address
from citeflow.serving.handlers import LimitedRoute
from citeflow.serving.problems import ProblemError
from citeflow.utils.records import Record

if TYPE_CHECKING:
    from citeflow.platform.oidc import Provider

router = APIRouter(route_class=LimitedRoute, prefix="/oidc", tags=["session"])

COOKIE = "citeflow_oidc"
"""Has what belongs to a log-in that goes on at the provider."""

COOKIE_PATH = "/api/v1/oidc"
COOKIE_S = 600

UNKNOWN = "(unknown)"
"""Name in the audit of somebody whom no token has named; no account can have it."""

_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


class OidcRequest(Record):
    """A wish to log in through the identity provider."""

    next: StrictStr = Field("/", max_length=2_000)
    """Path of the page that is opened afterwards."""


class OidcStart(BaseModel):
    """The provider's page on which somebody logs in."""

    url: str


class OidcAnswer(Record):
    """The words with which the provider has sent somebody back."""

    code: StrictStr = Field("", max_length=4_000)
    state: StrictStr = Field("", max_length=200)
    error: StrictStr = Field("", max_length=200)


class OidcSession(BaseModel):
    """A log-in through the identity provider."""

    me: Me
    next: str
    """Path of the page that is opened now."""


@router.post("/login")
def begin_log_in(
    body: OidcRequest, request: Request, response: Response, shared: Shared
) -> OidcStart:
    """Begin a log-in, and return the address of the provider's page."""
    provider = _provider(shared)
    if not _PATH.fullmatch(body.next) or body.next.startswith("/api/"):
        detail = "not a page of this server"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="next")
    try:
        started = provider.start(shared.url, body.next)
    except CiteflowError as error:
        _note(shared, request, UNKNOWN, ProblemError.of(error).detail)
        raise
    _keep(shared, response, started.sealed)
    return OidcStart(url=started.url)


@router.post("/session")
def finish_log_in(
    body: OidcAnswer, request: Request, response: Response, shared: Shared
) -> OidcSession:
    """Log in with what the provider has sent back."""
    provider = _provider(shared)
    who = UNKNOWN
    try:
        shared.accounts.check_failures(address=address(request))
        if body.error or not body.code:
            detail = f"the identity provider refused: {body.error or 'no reason given'}"
            raise ProblemError(HTTPStatus.UNAUTHORIZED, detail, hint="log in again")
        sealed = request.cookies.get(COOKIE, "")
        identity, after = provider.finish(sealed, body.state, body.code)
        who = identity.name or UNKNOWN
        account, is_new = shared.identities.account(identity)
    except ProblemError as problem:
        if problem.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            shared.accounts.count_failure(address=address(request))
        _note(shared, request, who, problem.detail)
        raise
    except CiteflowError as error:
        _note(shared, request, who, ProblemError.of(error).detail)
        raise
    _keep(shared, response, "")
    shared.set_cookie(response, shared.accounts.begin_session(account.name))
    outcome = f"{'opened the account' if is_new else 'logged in'} by {provider.settings.name}"
    shared.accounts.note(account.name, "log in", account.name, outcome)
    return OidcSession(me=me_of(shared, account), next=after)


def _provider(shared: Services) -> "Provider":
    provider = shared.oidc
    if provider is None or not provider.settings.client_id:
        raise ProblemError(HTTPStatus.NOT_FOUND, "this server has no identity provider")
    return provider


def _note(shared: Services, request: Request, who: str, detail: str) -> None:
    shared.accounts.note(who, "log in", address(request), f"refused: {detail}")


def _keep(shared: Services, response: Response, sealed: str) -> None:
    response.set_cookie(
        COOKIE,
        sealed,
        max_age=COOKIE_S if sealed else 0,
        path=COOKIE_PATH,
        httponly=True,
        samesite="strict",
        secure=shared.is_secure,
    )
