"""The database of the platform: accounts, quotas, queue, uploads, versions of models, audit.

SQLite here, Postgres on a cluster; times are seconds since 1970. Every change happens in a
transaction that excludes all others, so that a server which is killed leaves all of it or nothing.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, OperationalError

from citeflow.errors import ConfigError, UnavailableError

BUSY_S = 20.0
"""Longest wait for the transaction of another process."""

LOCK_KEY = 1_667_851_881
"""Of Postgres' advisory lock that every change takes."""

METADATA = MetaData()

TableRow = Row[tuple[Any, ...]]
"""A row of one of the tables, with their columns as attributes."""


def _user(**options: object) -> Column[str]:
    key = ForeignKey("users.name", ondelete="CASCADE")
    return Column("user", String(63), key, nullable=False, **options)  # type: ignore[arg-type]


versions = Table("schema_version", METADATA, Column("number", Integer, nullable=False))

users = Table(
    "users",
    METADATA,
    Column("name", String(63), primary_key=True),
    Column("role", String(10), nullable=False),
    Column("password", String(200)),  # argon2id; none before the first log-in
    Column("subject", String(300), unique=True),  # of the identity provider
    Column("created", Float, nullable=False),
    Column("last_seen", Float),
    Column("suspended", Boolean, nullable=False, default=False),
    Column("size", String(1)),  # of the environment; none where there is none
    Column("last_turn", Integer, nullable=False, default=0),  # newest turn of a run
)

links = Table(
    "links",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("user", String(63)),  # none for the first account
    Column("expires", Float, nullable=False),
)

sessions = Table(
    "sessions",
    METADATA,
    Column("digest", String(64), primary_key=True),
    _user(index=True),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

failures = Table(
    "failures",
    METADATA,
    Column("subject", String(200), nullable=False, index=True),
    Column("time", Float, nullable=False),
)

runs = Table(
    "runs",
    METADATA,
    Column("id", String(32), primary_key=True),
    _user(index=True),
    Column("name", String(63), nullable=False),
    Column("task", String(20), nullable=False),
    Column("dataset", String(2_000), nullable=False),  # as it was given
    Column("model", String(200), nullable=False),
    Column("source", String(4_000), nullable=False),  # as the backend gets it
    Column("settings", JSON, nullable=False),  # those that were given
    Column("yaml", String, nullable=False),  # all settings
    Column("workers", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    # queued, started (which says no more than that its backend has been, or will be, told), ended
    Column("phase", String(10), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("place", Integer, nullable=False),  # in the queue
    Column("turn", Integer),  # in the order of all starts
    Column("is_cancelled", Boolean, nullable=False, default=False),
    Column("state", String(10)),  # of the backend, when it ended
    Column("detail", String(1_000), nullable=False, default=""),
    Column("started", Float),
    Column("ended", Float),
    Column("score", JSON),  # name and value, when it has ended
    Column("spark", JSON),  # validation scores, when it has ended
    UniqueConstraint("user", "name"),
)

uploads = Table(
    "uploads",
    METADATA,
    Column("id", String(32), primary_key=True),
    _user(index=True),
    Column("name", String(200), nullable=False),
    Column("kind", String(10), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("verdict", JSON, nullable=False),
)

model_versions = Table(
    "model_versions",
    METADATA,
    _user(primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run", String(32), nullable=False, unique=True),
    Column("run_name", String(63), nullable=False),
    Column("dataset", String(2_000), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("graph", String(64), nullable=False),
    Column("scores", JSON, nullable=False),
    Column("created", Float, nullable=False),
)

aliases = Table(
    "aliases",
    METADATA,
    _user(primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("alias", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
)

deployments = Table(
    "deployments",
    METADATA,
    _user(primary_key=True),
    Column("model", String(63), primary_key=True),
    Column("version", Integer, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("user", String(63), nullable=False),
    Column("action", String(40), nullable=False),
    Column("object", String(300), nullable=False),
    Column("outcome", String(300), nullable=False),
)

MIGRATIONS: tuple[Callable[[Connection], None], ...] = (METADATA.create_all,)
"""Steps from one version of the tables to the next; they go forward only."""


class Store:
    """A database that is open, in the newest version."""

    def __init__(self, url: str) -> None:
        """Open it, and bring it to the newest version.

        Raises:
            ConfigError: it is no URL of a database, or a newer citeflow has written it.
            UnavailableError: it does not answer.
        """
        self._engine = _engine(url)
        try:
            with self.write() as connection:
                _migrate(connection)
        except OperationalError as error:
            reason = str(error.orig).splitlines()[0]
            raise UnavailableError("the database does not answer", reason) from None

    @classmethod
    def of_folder(cls, folder: Path) -> "Store":
        """Open the SQLite database of a folder, or make it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(URL.create("sqlite", database=str(folder / "platform.db")).render_as_string())

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in one transaction."""
        with self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Change something in a transaction that no other one overlaps."""
        opened = self._engine.connect().execution_options(is_write=True)
        with opened as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        engine = create_engine(parsed, pool_pre_ping=True)
    except (ArgumentError, ImportError) as error:
        hint = "such as postgresql+psycopg://user@host/citeflow"
        raise ConfigError("not a database", str(error).splitlines()[0], hint=hint) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: object, _: object) -> None:
    # Transactions begin where `_begin_sqlite` says, and not where Python's driver thinks.
    connection.isolation_level = None  # type: ignore[attr-defined]
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute(f"PRAGMA busy_timeout = {int(1_000 * BUSY_S)}")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")


def _migrate(connection: Connection) -> None:
    number = 0
    if inspect(connection).has_table(versions.name):
        number = connection.execute(select(versions.c.number)).scalar_one()
    if number > len(MIGRATIONS):
        hint = f"this citeflow knows version {len(MIGRATIONS)}"
        raise ConfigError("a newer citeflow has written the database: version", number, hint=hint)
    for step in MIGRATIONS[number:]:
        step(connection)
    if number == 0:
        connection.execute(insert(versions).values(number=len(MIGRATIONS)))
    else:
        connection.execute(update(versions).values(number=len(MIGRATIONS)))


def now() -> float:
    """Return the time in seconds since 1970."""
    return time.time()
