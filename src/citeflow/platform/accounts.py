"""Accounts: the link that opens one, log-in, sessions, roles, and the record of what was done."""

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update

from citeflow import paths
from citeflow.errors import ConfigError, NotFoundError
from citeflow.platform import store
from citeflow.platform.store import Store, TableRow
from citeflow.serving.problems import ProblemError

USER, ADMIN = "user", "admin"

LINK_S = 7 * 86_400.0
"""Time in which a link opens an account."""

IDLE_S = 12 * 3_600.0
"""A session ends when nothing was asked for so long."""

SESSION_S = 7 * 86_400.0
"""A session ends at the latest."""

SEEN_EVERY_S = 60.0
"""Time between two notes that a session is in use."""

WINDOW_S = 300.0
"""Time for which a failed log-in counts."""

MAX_FAILURES = {"pair": 5, "address": 30, "name": 100}
"""Failed log-ins within WINDOW_S, after which more are refused: of a name from an address, of an
address, of a name. The last is high: else anybody could lock out anybody."""

HASHES_AT_A_TIME = 2
"""A hash takes 64 MiB."""

TURN_S = 5.0
"""Longest wait of a log-in for its turn."""

KEPT_ENTRIES = 100_000
"""Entries of the audit that are kept."""

_hasher = PasswordHasher()
_turns = BoundedSemaphore(HASHES_AT_A_TIME)
_NOBODY = _hasher.hash(secrets.token_hex())
"""Compared with where there is no such name, so that the time of a refusal does not tell."""

WRONG = "name or password is wrong"


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """Somebody who is logged in."""

    name: str
    role: str
    size: str | None
    """Of the environment."""

    @property
    def is_admin(self) -> bool:
        """True if the account may manage others."""
        return self.role == ADMIN


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of a database."""

    store: Store

    def need_first(self) -> bool:
        """Tell whether there is no admin yet."""
        with self.store.read() as connection:
            is_admin = store.users.c.role == ADMIN
            return not connection.execute(select(func.count()).where(is_admin)).scalar()

    def first_link(self) -> str:
        """Return the token of a link that makes the first account, an admin's.

        Links for it that were made before do not work any more.
        """
        with self.store.write() as connection:
            connection.execute(delete(store.links).where(store.links.c.user.is_(None)))
            return _make_link(connection, None)

    def add(self, name: str, *, role: str = USER, size: str | None = None) -> str:
        """Make an account, and return the token of the link by which its user sets a password.

        One that has never been used gets another link, so that a request may be repeated.

        Raises:
            ProblemError: it is no name, or somebody uses this account.
        """
        check_name(name)
        with self.store.write() as connection:
            row = _find(connection, name)
            if row is not None and (row.password or row.subject):
                raise ProblemError(HTTPStatus.CONFLICT, f"there is a user {name} already")
            values: dict[str, object] = {"role": role, "size": size}
            if row is None:
                values |= {"name": name, "created": store.now(), "suspended": False}
                connection.execute(insert(store.users).values(**values))
            else:
                of_name = store.users.c.name == name
                connection.execute(update(store.users).where(of_name).values(**values))
                connection.execute(delete(store.links).where(store.links.c.user == name))
            return _make_link(connection, name)

    def link_owner(self, token: str) -> str:
        """Return the account that a link opens; "" where it has no name yet, or does not work."""
        with self.store.read() as connection:
            row = _read_link(connection, token)
            return (row.user or "") if row is not None else ""

    def open(self, token: str, name: str, password: str) -> str:
        """Set the password of the account that a link opens; return the token of a session.

        Args:
            token: of the link, which works once.
            name: of the first account; other links know the name.
            password: its password from now on.

        Raises:
            ProblemError: the link is unknown or too old.
        """
        hashed = _hash(password)
        with self.store.write() as connection:
            row = _read_link(connection, token)
            if row is None:
                hint = "ask for another one; the server prints that of the first account"
                raise ProblemError(HTTPStatus.FORBIDDEN, "the link does not work", hint=hint)
            if row.user is None:
                check_name(name)
                if _find(connection, name):
                    raise ProblemError(HTTPStatus.CONFLICT, f"there is a user {name} already")
                connection.execute(
                    insert(store.users).values(
                        name=name, role=ADMIN, created=store.now(), suspended=False
                    )
                )
            of_name = store.users.c.name == (row.user or name)
            connection.execute(update(store.users).where(of_name).values(password=hashed))
            connection.execute(delete(store.links).where(store.links.c.digest == row.digest))
            return _make_session(connection, row.user or name)

    def log_in(self, name: str, password: str, address: str) -> str:
        """Return the token of a new session.

        Raises:
            ProblemError: name or password is wrong, or too often was.
        """
        subjects = {"pair": f"{name} {address}", "address": address, "name": name}
        with self.store.read() as connection:
            _check_failures(connection, subjects)
            row = _find(connection, name)
        is_right = _verify(row.password if row and row.password else _NOBODY, password)
        if not is_right or row is None or row.suspended:
            self.count_failure(**subjects)
            if is_right and row is not None:
                raise ProblemError(HTTPStatus.FORBIDDEN, "the account is suspended")
            raise ProblemError(HTTPStatus.UNAUTHORIZED, WRONG)
        with self.store.write() as connection:
            of_pair = store.failures.c.subject == f"pair {subjects['pair']}"
            connection.execute(delete(store.failures).where(of_pair))
            return _make_session(connection, name)

    def check_failures(self, **subjects: str) -> None:
        """Check that few log-ins have failed of late, by the kinds of MAX_FAILURES.

        Raises:
            ProblemError: too many have.
        """
        with self.store.read() as connection:
            _check_failures(connection, subjects)

    def count_failure(self, **subjects: str) -> None:
        """Note that a log-in has failed, by the kinds of MAX_FAILURES."""
        now = store.now()
        failed = [{"subject": f"{kind} {each}", "time": now} for kind, each in subjects.items()]
        with self.store.write() as connection:
            old = store.failures.c.time < now - WINDOW_S
            connection.execute(delete(store.failures).where(old))
            connection.execute(insert(store.failures), failed)

    def begin_session(self, name: str) -> str:
        """Return the token of a new session of somebody who has proved to be this user."""
        with self.store.write() as connection:
            return _make_session(connection, name)

    def of_session(self, token: str) -> Account | None:
        """Return who a session belongs to; None where it has ended."""
        if not token:
            return None
        digest = _digest(token)
        joined = store.sessions.join(store.users, store.sessions.c.user == store.users.c.name)
        columns = (store.users, store.sessions.c.seen, store.sessions.c.created.label("since"))
        query = select(*columns).select_from(joined).where(store.sessions.c.digest == digest)
        with self.store.read() as connection:
            row = connection.execute(query).one_or_none()
        now = store.now()
        if row is None or row.suspended or now - row.seen > IDLE_S or now - row.since > SESSION_S:
            return None
        if now - row.seen > SEEN_EVERY_S:
            with self.store.write() as connection:
                of_session = store.sessions.c.digest == digest
                connection.execute(update(store.sessions).where(of_session).values(seen=now))
                of_name = store.users.c.name == row.name
                connection.execute(update(store.users).where(of_name).values(last_seen=now))
        return Account(name=row.name, role=row.role, size=row.size)

    def log_out(self, token: str) -> None:
        """End a session."""
        with self.store.write() as connection:
            of_token = store.sessions.c.digest == _digest(token)
            connection.execute(delete(store.sessions).where(of_token))

    def change_password(self, name: str, old: str, new: str) -> str:
        """Change a password and end all sessions; return the token of a new one.

        Raises:
            ProblemError: the old one is wrong, or there is none.
        """
        with self.store.read() as connection:
            row = _find(connection, name)
        if row is not None and row.password is None:
            detail = "the account has no password: the identity provider opens it"
            raise ProblemError(HTTPStatus.CONFLICT, detail)
        if row is None or not _verify(row.password or _NOBODY, old):
            raise ProblemError(HTTPStatus.FORBIDDEN, "the old password is wrong", field="old")
        hashed = _hash(new)
        with self.store.write() as connection:
            of_name = store.users.c.name == name
            connection.execute(update(store.users).where(of_name).values(password=hashed))
            connection.execute(delete(store.sessions).where(store.sessions.c.user == name))
            return _make_session(connection, name)

    def resize(self, name: str, size: str | None) -> None:
        """Give an account an environment of this size, or none."""
        with self.store.write() as connection:
            of_name = store.users.c.name == name
            connection.execute(update(store.users).where(of_name).values(size=size))

    def all(self) -> Sequence[TableRow]:
        """Return all rows of `users` by name."""
        with self.store.read() as connection:
            return connection.execute(select(store.users).order_by(store.users.c.name)).all()

    def get(self, name: str) -> TableRow:
        """Return the row of an account.

        Raises:
            NotFoundError: there is none.
        """
        with self.store.read() as connection:
            return _get(connection, name)

    def change(self, name: str, values: dict[str, object]) -> None:
        """Change role, size or suspension; a suspended user is logged out.

        Raises:
            NotFoundError: there is no such account.
            ProblemError: nobody would be left who can manage accounts.
        """
        with self.store.write() as connection:
            row = _get(connection, name)
            is_lost = values.get("suspended") or values.get("role", row.role) != ADMIN
            if row.role == ADMIN and is_lost:
                _check_other_admin(connection, name)
            if values:
                of_name = store.users.c.name == name
                connection.execute(update(store.users).where(of_name).values(**values))
            if values.get("suspended"):
                connection.execute(delete(store.sessions).where(store.sessions.c.user == name))

    def check_dispensable(self, name: str) -> None:
        """Check that an account may be removed.

        Raises:
            NotFoundError: there is none.
            ProblemError: nobody would be left who can manage accounts.
        """
        with self.store.read() as connection:
            if _get(connection, name).role == ADMIN:
                _check_other_admin(connection, name)

    def remove(self, name: str) -> None:
        """Delete an account with all that is recorded of it.

        Raises:
            NotFoundError: there is none.
            ProblemError: nobody would be left who can manage accounts.
        """
        with self.store.write() as connection:
            if _get(connection, name).role == ADMIN:
                _check_other_admin(connection, name)
            connection.execute(delete(store.links).where(store.links.c.user == name))
            connection.execute(delete(store.users).where(store.users.c.name == name))

    def note(self, user: str, action: str, of: str, outcome: str) -> None:
        """Add an entry to the audit."""
        entry = {"user": user[:63], "action": action, "object": of[:300], "outcome": outcome[:300]}
        with self.store.write() as connection:
            added = connection.execute(insert(store.audit).values(time=store.now(), **entry))
            newest = added.inserted_primary_key
            if newest and newest[0] % 1_000 == 0:
                old = store.audit.c.id <= newest[0] - KEPT_ENTRIES
                connection.execute(delete(store.audit).where(old))

    def entries(self, before: int | None, limit: int) -> Sequence[TableRow]:
        """Return rows of the audit, the newest first."""
        query = select(store.audit).order_by(store.audit.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(store.audit.c.id < before)
        with self.store.read() as connection:
            return connection.execute(query).all()


def check_name(name: str) -> None:
    """Check the name of a user, or of a run: both name a folder and a pod.

    Raises:
        ProblemError: it is none.
    """
    try:
        paths.check_name(name)
    except ConfigError as error:
        detail, status = f"not a name: {name}", HTTPStatus.UNPROCESSABLE_ENTITY
        raise ProblemError(status, detail, hint=error.hint, field="name") from None


def check_role(role: str) -> None:
    """Check the name of a role.

    Raises:
        ConfigError: there is no such role.
    """
    if role not in (USER, ADMIN):
        raise ConfigError("no such role", role, hint=f"{USER} or {ADMIN}")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


@contextlib.contextmanager
def _hashing() -> Iterator[None]:
    """Take a turn at hashing, so that log-ins take neither all memory nor all threads."""
    if not _turns.acquire(timeout=TURN_S):
        raise ProblemError(
            HTTPStatus.TOO_MANY_REQUESTS, "too many log-ins at a time", headers={"Retry-After": "5"}
        )
    try:
        yield
    finally:
        _turns.release()


def _hash(password: str) -> str:
    with _hashing():
        return _hasher.hash(password)


def _verify(hashed: str, password: str) -> bool:
    with _hashing():
        try:
            return _hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False


def _make_link(connection: Connection, user: str | None) -> str:
    token = secrets.token_urlsafe(32)
    expires = store.now() + LINK_S
    values = {"digest": _digest(token), "user": user, "expires": expires}
    connection.execute(insert(store.links).values(**values))
    return token


def _read_link(connection: Connection, token: str) -> TableRow | None:
    query = select(store.links).where(store.links.c.digest == _digest(token))
    row = connection.execute(query).one_or_none()
    return row if row is not None and row.expires > store.now() else None


def _make_session(connection: Connection, user: str) -> str:
    token = secrets.token_urlsafe(32)
    now = store.now()
    old = (store.sessions.c.seen < now - IDLE_S) | (store.sessions.c.created < now - SESSION_S)
    connection.execute(delete(store.sessions).where(old))
    values = {"digest": _digest(token), "user": user, "created": now, "seen": now}
    connection.execute(insert(store.sessions).values(**values))
    connection.execute(update(store.users).where(store.users.c.name == user).values(last_seen=now))
    return token


def _find(connection: Connection, name: str) -> TableRow | None:
    return connection.execute(select(store.users).where(store.users.c.name == name)).one_or_none()


def _get(connection: Connection, name: str) -> TableRow:
    row = _find(connection, name)
    if row is None:
        raise NotFoundError("no such user", name)
    return row


def _check_other_admin(connection: Connection, name: str) -> None:
    others = (
        (store.users.c.role == ADMIN)
        & (store.users.c.name != name)
        & store.users.c.suspended.is_(False)
        & (store.users.c.password.is_not(None) | store.users.c.subject.is_not(None))
    )
    if not connection.execute(select(func.count()).where(others)).scalar():
        raise ProblemError(HTTPStatus.CONFLICT, f"{name} is the only admin")


def _check_failures(connection: Connection, subjects: dict[str, str]) -> None:
    since = store.failures.c.time > store.now() - WINDOW_S
    for kind, subject in subjects.items():
        of_subject = store.failures.c.subject == f"{kind} {subject}"
        failed = connection.execute(select(func.count()).where(of_subject & since)).scalar() or 0
        if failed >= MAX_FAILURES[kind]:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many failed log-ins",
                hint=f"wait {WINDOW_S / 60:.0f} minutes",
                headers={"Retry-After": str(int(WINDOW_S))},
            )
