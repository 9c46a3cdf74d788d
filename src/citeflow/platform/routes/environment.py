"""The environment of a user, and the sizes to choose from."""

from http import HTTPStatus

from fastapi import APIRouter

from citeflow.errors import NotFoundError
from citeflow.platform.schema import EnvironmentBody, EnvironmentRequest, SizeBody
from citeflow.platform.services import Services, Shared, User

router = APIRouter(tags=["environment"])


@router.get("/sizes")
def list_sizes(_: User, shared: Shared) -> list[SizeBody]:
    """List the sizes, the smallest first."""
    return shared.environments.sizes()


@router.get("/environment")
def show_environment(account: User, shared: Shared) -> EnvironmentBody:
    """Return quota and use."""
    return _shown(shared, account.name, account.size)


@router.put("/environment")
def make_environment(body: EnvironmentRequest, account: User, shared: Shared) -> EnvironmentBody:
    """Make the environment, or change its size."""
    shared.environments.make(account, body.size)
    shared.accounts.note(account.name, "environment", account.name, body.size)
    shared.queue.wake()
    return _shown(shared, account.name, body.size)


@router.delete("/environment", status_code=HTTPStatus.NO_CONTENT)
def remove_environment(account: User, shared: Shared) -> None:
    """Give the environment back, which has to be empty."""
    shared.environments.remove(account)
    shared.accounts.note(account.name, "environment", account.name, "removed")


def _shown(shared: Services, user: str, size: str | None) -> EnvironmentBody:
    found = shared.environments.of(user, size)
    if found is None:
        raise NotFoundError("no environment yet", user, hint="choose its size first")
    return found
