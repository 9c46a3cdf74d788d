"""Environments: the quota of each user, and what is used of it."""

import contextlib
import os
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from sqlalchemy import func, select

from citeflow.errors import UnavailableError
from citeflow.platform import store
from citeflow.platform.accounts import Account, Accounts
from citeflow.platform.backends.base import Backend, EnvironmentState, Resources
from citeflow.platform.phases import ENDED, STARTED
from citeflow.platform.schema import Amounts, EnvironmentBody, Link, SizeBody
from citeflow.platform.store import Store
from citeflow.serving.problems import ProblemError

DISK_EVERY_S = 30.0
"""Seconds for which the size of a folder is taken for known."""


@dataclass(frozen=True, slots=True)
class Environments:
    """The environments of all users."""

    store: Store
    accounts: Accounts
    backend: Backend
    _disk: dict[Path, tuple[float, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def sizes(self) -> list[SizeBody]:
        """Return the sizes to choose from."""
        return [
            SizeBody.model_validate({"size": name, **_amounts(size).model_dump()})
            for name, size in self.backend.sizes().items()
        ]

    def quota(self, account: Account) -> Resources:
        """Return the quota of a user.

        Raises:
            ProblemError: there is no environment.
        """
        if account.size is None:
            raise ProblemError(
                HTTPStatus.CONFLICT, "no environment yet", hint="choose its size first"
            )
        return self.backend.sizes()[account.size]

    def of(
        self, user: str, size: str | None, *, is_suspended: bool = False
    ) -> EnvironmentBody | None:
        """Describe the environment of a user; None where there is none."""
        if size is None:
            return None
        state = self._state(user)
        return EnvironmentBody.model_validate(
            {
                "size": size,
                **_amounts(self.backend.sizes()[size]).model_dump(),
                "used": _amounts(state.used) if state.used else self.used(user),
                "state": "suspended" if is_suspended else state.state,
                "detail": state.detail,
                "links": [Link(name=name, url=url) for name, url in (state.links or {}).items()],
            }
        )

    def make(self, account: Account, size: str) -> None:
        """Make the environment of a user, or change its size.

        Raises:
            ProblemError: more is in use than it would have.
        """
        wanted = self.backend.sizes()[size]
        used = self.used(account.name)
        if used.cores > wanted.cores or used.memory > wanted.memory:
            hint = "wait until they have ended, or cancel them"
            raise ProblemError(HTTPStatus.CONFLICT, "your runs use more than that", hint=hint)
        self.backend.ensure_environment(account.name, wanted)
        self.accounts.resize(account.name, size)

    def remove(self, account: Account) -> None:
        """Give the environment back.

        Raises:
            ProblemError: there are runs in it, which would be lost.
        """
        if account.size is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "no environment")
        with self.store.read() as connection:
            for table, what in ((store.runs, "runs"), (store.uploads, "uploads")):
                query = select(func.count()).where(table.c.user == account.name)
                if connection.execute(query).scalar():
                    detail = f"the environment has {what}, which would be lost"
                    hint = f"delete your {what} first"
                    raise ProblemError(HTTPStatus.CONFLICT, detail, hint=hint)
        self.accounts.resize(account.name, None)
        self.backend.remove_environment(account.name)

    def change_user(self, name: str, values: dict[str, object]) -> None:
        """Change role, size or suspension of an account, and its environment with it.

        Raises:
            NotFoundError: there is no such account.
            ProblemError: nobody would be left who can manage accounts.
        """
        if values.get("suspended") is False:  # before the queue starts what would be refused
            self.accounts.get(name)
            self.backend.wake(name)
        self.accounts.change(name, values)
        if values.get("suspended"):
            self.backend.suspend(name)
        if size := values.get("size"):
            self.backend.ensure_environment(name, self.backend.sizes()[str(size)])

    def remove_user(self, name: str) -> None:
        """Delete an account with its environment, runs and files.

        The environment goes first: where the place refuses, or does not answer, the account stays,
        and it can be tried again. Nobody is logged in to it meanwhile, so that nothing new starts.

        Raises:
            NotFoundError: there is no such account.
            ProblemError: runs are at work, or nobody would be left who can manage accounts.
            ConfigError: the place refuses.
        """
        was_suspended = self.accounts.get(name).suspended
        if self.num_active(name):
            hint = "suspend the user, and wait until they have ended"
            raise ProblemError(HTTPStatus.CONFLICT, "the user has runs at work", hint=hint)
        self.accounts.change(name, {"suspended": True})
        try:
            self.backend.remove_environment(name)
        except Exception:
            self.accounts.change(name, {"suspended": was_suspended})
            raise
        self.accounts.remove(name)

    def used(self, user: str) -> Amounts:
        """Return what the runs of a user have at the moment, and the disk that the user takes."""
        sums = (func.sum(store.runs.c.workers), func.sum(store.runs.c.memory))
        is_at_work = (store.runs.c.user == user) & (store.runs.c.phase == STARTED)
        with self.store.read() as connection:
            cores, memory = connection.execute(select(*sums).where(is_at_work)).one()
        return Amounts(cores=cores or 0, memory=memory or 0, disk=self.disk(user))

    def disk(self, user: str) -> int:
        """Return the bytes that the files of a user take, as of the last half minute."""
        folder = self.backend.folder(user)
        now = time.monotonic()
        with self._lock:
            looked, found = self._disk.get(folder, (-DISK_EVERY_S, 0))
            if now - looked < DISK_EVERY_S:
                return found
            self._disk[folder] = (now, found)  # others take the old figure meanwhile
        size = size_of(folder)
        self._disk[folder] = (now, size)
        return size

    def num_active(self, user: str) -> int:
        """Count the runs of a user that wait or are at work."""
        is_active = (store.runs.c.user == user) & (store.runs.c.phase != ENDED)
        with self.store.read() as connection:
            return connection.execute(select(func.count()).where(is_active)).scalar() or 0

    def _state(self, user: str) -> EnvironmentState:
        try:
            return self.backend.environment(user)
        except UnavailableError as error:
            return EnvironmentState(state="preparing", detail=f"{error.what}: {error.value}")


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; those that vanish meanwhile count as none."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(top, name)).st_size
    return total


def _amounts(size: Resources) -> Amounts:
    return Amounts(cores=size.cores, memory=size.memory, disk=size.disk)
