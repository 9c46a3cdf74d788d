"""Accounts of those who ask: opened by a link, logged in and out."""

from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from citeflow import __version__
from citeflow.platform.accounts import Account
from citeflow.platform.schema import Me, PasswordRequest, SessionRequest, SetupBody, SetupRequest
from citeflow.platform.services import COOKIE, Services, Shared, User, address
from citeflow.serving.handlers import LimitedRoute
from citeflow.serving.problems import ProblemError

router = APIRouter(route_class=LimitedRoute, tags=["session"])


@router.get("/setup")
def show_setup(shared: Shared, token: str = "") -> SetupBody:
    """Say what a browser without a session can do."""
    return SetupBody(
        first_user=shared.accounts.need_first(),
        name=shared.accounts.link_owner(token) if token else "",
        oidc=shared.oidc_name,
        version=__version__,
    )


@router.post("/setup", status_code=HTTPStatus.CREATED)
def set_up(body: SetupRequest, response: Response, shared: Shared) -> Me:
    """Open an account by its link, and log in."""
    token = shared.accounts.open(body.token, body.name, body.password)
    return _logged_in(shared, response, token, "opened the account")


@router.post("/session")
def log_in(body: SessionRequest, request: Request, response: Response, shared: Shared) -> Me:
    """Log in."""
    try:
        token = shared.accounts.log_in(body.name, body.password, address(request))
    except ProblemError as problem:
        outcome = f"refused: {problem.detail}"
        shared.accounts.note(body.name, "log in", address(request), outcome)
        raise
    return _logged_in(shared, response, token, "logged in")


@router.delete("/session", status_code=HTTPStatus.NO_CONTENT)
def log_out(request: Request, response: Response, shared: Shared) -> None:
    """Log out; without a session nothing happens."""
    shared.accounts.log_out(request.cookies.get(COOKIE, ""))
    shared.set_cookie(response, "")


@router.get("/me")
def show_me(account: User, shared: Shared) -> Me:
    """Return who asks."""
    return me_of(shared, account)


@router.post("/password", status_code=HTTPStatus.NO_CONTENT)
def change_password(
    body: PasswordRequest, account: User, response: Response, shared: Shared
) -> None:
    """Change one's own password; all other sessions end."""
    token = shared.accounts.change_password(account.name, body.old, body.new)
    shared.set_cookie(response, token)
    shared.accounts.note(account.name, "change password", account.name, "done")


def _logged_in(shared: Services, response: Response, token: str, outcome: str) -> Me:
    account = shared.accounts.of_session(token)
    assert account is not None
    shared.set_cookie(response, token)
    shared.accounts.note(account.name, "log in", account.name, outcome)
    return me_of(shared, account)


def me_of(shared: Services, account: Account) -> Me:
    """Describe who asks."""
    return Me.model_validate(
        {
            "name": account.name,
            "role": account.role,
            "environment": shared.environments.of(account.name, account.size),
        }
    )
