"""Routes of admins: accounts, their quotas and roles, and the record of what was done.

An admin sees how much somebody uses, and nothing of what it is.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select

from citeflow.platform import store
from citeflow.platform.runs import to_time
from citeflow.platform.schema import (
    MAX_INTEGER,
    AuditBody,
    AuditEntry,
    UserBody,
    UserChange,
    UserLink,
    UserList,
    UserRequest,
)
from citeflow.platform.services import Admin, Services, Shared
from citeflow.serving.handlers import LimitedRoute

router = APIRouter(route_class=LimitedRoute, tags=["admin"])

ENTRIES = 100


@router.get("/users")
def list_users(_: Admin, shared: Shared) -> UserList:
    """List the accounts."""
    counted = select(store.runs.c.user, func.count().label("num")).group_by(store.runs.c.user)
    with shared.store.read() as connection:
        runs = {row.user: row.num for row in connection.execute(counted)}
    return UserList(
        users=[_user(shared, row, runs.get(row.name, 0)) for row in shared.accounts.all()]
    )


@router.post("/users", status_code=HTTPStatus.CREATED)
def add_user(body: UserRequest, account: Admin, shared: Shared) -> UserLink:
    """Make an account; one that was never used gets another link."""
    token = shared.accounts.add(body.name, role=body.role, size=body.size)
    if body.size is not None:
        shared.backend.ensure_environment(body.name, shared.backend.sizes()[body.size])
    shared.accounts.note(account.name, "add user", body.name, body.role)
    return UserLink(name=body.name, link=f"{shared.url}/setup?token={token}")


@router.patch("/users/{name}")
def change_user(name: str, body: UserChange, account: Admin, shared: Shared) -> UserBody:
    """Change role, quota or suspension of an account."""
    changes = {key: value for key, value in body.model_dump().items() if value is not None}
    shared.environments.change_user(name, changes)
    said = ", ".join(f"{key} {value}" for key, value in changes.items())
    shared.accounts.note(account.name, "change user", name, said)
    shared.queue.wake()
    of_user = store.runs.c.user == name
    with shared.store.read() as connection:
        runs = connection.execute(select(func.count()).where(of_user)).scalar() or 0
    return _user(shared, shared.accounts.get(name), runs)


@router.delete("/users/{name}", status_code=HTTPStatus.NO_CONTENT)
def remove_user(name: str, account: Admin, shared: Shared) -> None:
    """Delete an account with all of its runs and files."""
    shared.environments.remove_user(name)
    shared.accounts.note(account.name, "remove user", name, "done")


@router.get("/audit")
def show_audit(
    _: Admin,
    shared: Shared,
    before: Annotated[int | None, Query(ge=1, le=MAX_INTEGER)] = None,
) -> AuditBody:
    """Return entries of the audit, the newest first; `before` is the id of one."""
    rows = shared.accounts.entries(before, ENTRIES)
    return AuditBody(entries=[AuditEntry.model_validate(dict(row._mapping)) for row in rows])


def _user(shared: Services, row: store.TableRow, runs: int) -> UserBody:
    environment = shared.environments.of(row.name, row.size, is_suspended=row.suspended)
    return UserBody.model_validate(
        {
            "name": row.name,
            "role": row.role,
            "created": to_time(row.created),
            "last_seen": to_time(row.last_seen) if row.last_seen else None,
            "suspended": row.suspended,
            "environment": environment,
            "runs": runs,
        }
    )
