"""Accounts of those whom an identity provider knows: who is who, and who may have an account."""

from dataclasses import dataclass
from http import HTTPStatus

from sqlalchemy import Connection, delete, insert, select, update

from citeflow import paths
from citeflow.platform import store
from citeflow.platform.accounts import SEEN_EVERY_S, USER, Account
from citeflow.platform.store import Store, TableRow
from citeflow.serving.problems import ProblemError


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Somebody whom the provider has vouched for."""

    subject: str
    """Digest of issuer and subject, which are never another's."""

    name: str
    """Name of the account at the first log-in; empty where the provider gives none to trust."""


@dataclass(frozen=True, slots=True)
class Identities:
    """The accounts of a database by identity."""

    store: Store
    may_create: bool

    def account(self, identity: Identity) -> tuple[Account, bool]:
        """Return the account of an identity, and whether it is opened by this log-in.

        At the first log-in it is the one of that name which nobody uses yet, or a new one.

        Raises:
            ProblemError: there is none for it, or it is suspended.
        """
        of_subject = select(store.users).where(store.users.c.subject == identity.subject)
        with self.store.read() as connection:
            row = connection.execute(of_subject).one_or_none()
        is_new = row is None
        if row is None:
            with self.store.write() as connection:
                row = connection.execute(of_subject).one_or_none() or self._open(
                    connection, identity
                )
        if store.now() - (row.last_seen or 0.0) > SEEN_EVERY_S:
            of_name = store.users.c.name == row.name
            with self.store.write() as connection:
                connection.execute(update(store.users).where(of_name).values(last_seen=store.now()))
        if row.suspended:
            raise ProblemError(HTTPStatus.FORBIDDEN, "the account is suspended")
        return Account(name=row.name, role=row.role, size=row.size), is_new

    def _open(self, connection: Connection, identity: Identity) -> TableRow:
        name = identity.name
        if not paths.is_name(name):
            hint = "docs/platform.md says what it has to send"
            detail = "the provider gives no name that an account could have"
            raise ProblemError(HTTPStatus.FORBIDDEN, detail, hint=hint)
        of_name = store.users.c.name == name
        row = connection.execute(select(store.users).where(of_name)).one_or_none()
        if row is None and not self.may_create:
            hint = "an admin makes it"
            raise ProblemError(HTTPStatus.FORBIDDEN, f"there is no account {name}", hint=hint)
        if row is not None and (row.password or row.subject):
            # Who may choose a name at the provider would get what is another's.
            hint = "log in with its password" if row.password else "it is somebody else's there"
            detail = f"the account {name} is in use already"
            raise ProblemError(HTTPStatus.FORBIDDEN, detail, hint=hint)
        if row is None:
            values = {"name": name, "role": USER, "created": store.now(), "suspended": False}
            connection.execute(insert(store.users).values(**values))
        changed = update(store.users).where(of_name).values(subject=identity.subject)
        connection.execute(changed)
        connection.execute(delete(store.links).where(store.links.c.user == name))
        return connection.execute(select(store.users).where(of_name)).one()
