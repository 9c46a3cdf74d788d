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
    TypeDecorator,
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


class Text(TypeDecorator[str]):
    """Text without the null character, which Postgres does not store."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: object) -> str | None:
        """Return the text as it is stored."""
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if value else value


def _user(**options: object) -> Column[str]:
    key = ForeignKey("users.name", ondelete="CASCADE")
    return Column("user", Text(63), key, nullable=False, **options)  # type: ignore[arg-type]


versions = Table("schema_version", METADATA, Column("number", Integer, nullable=False))

users = Table(
    "users",
    METADATA,
    Column("name", Text(63), primary_key=True),
    Column("role", Text(10), nullable=False),
    Column("password", Text(200)),  # argon2id; none before the first log-in
    Column("subject", Text(300), unique=True),  # of the identity provider
    Column("created", Float, nullable=False),
    Column("last_seen", Float),
    Column("suspended", Boolean, nullable=False, default=False),
    Column("size", Text(1)),  # of the environment; none where there is none
    Column("last_turn", Integer, nullable=False, default=0),  # newest turn of a run
)

links = Table(
    "links",
    METADATA,
    Column("digest", Text(64), primary_key=True),
    Column("user", Text(63)),  # none for the first account
    Column("expires", Float, nullable=False),
)

sessions = Table(
    "sessions",
    METADATA,
    Column("digest", Text(64), primary_key=True),
    _user(index=True),
    Column("created", Float, nullable=False),
    Column("seen", Float, nullable=False),
)

failures = Table(
    "failures",
    METADATA,
    Column("subject", Text(200), nullable=False, index=True),
    Column("time", Float, nullable=False),
)

runs = Table(
    "runs",
    METADATA,
    Column("id", Text(32), primary_key=True),
    _user(index=True),
    Column("name", Text(63), nullable=False),
    Column("task", Text(20), nullable=False),
    Column("dataset", Text(2_000), nullable=False),  # as it was given
    Column("model", Text(200), nullable=False),
    Column("source", Text(4_000), nullable=False),  # as the backend gets it
    Column("settings", JSON, nullable=False),  # those that were given
    Column("yaml", Text, nullable=False),  # all settings
    Column("workers", Integer, nullable=False),
    Column("memory", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    # queued, started (which says no more than that its backend has been, or will be, told), ended
    Column("phase", Text(10), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("place", Integer, nullable=False),  # in the queue
    Column("turn", Integer),  # in the order of all starts
    Column("is_cancelled", Boolean, nullable=False, default=False),
    Column("state", Text(10)),  # of the backend, when it ended
    Column("detail", Text(1_000), nullable=False, default=""),
    Column("started", Float),
    Column("ended", Float),
    Column("score", JSON),  # name and value, when it has ended
    Column("spark", JSON),  # validation scores, when it has ended
    UniqueConstraint("user", "name"),
)

uploads = Table(
    "uploads",
    METADATA,
    Column("id", Text(32), primary_key=True),
    _user(index=True),
    Column("name", Text(200), nullable=False),
    Column("kind", Text(10), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("verdict", JSON, nullable=False),
)

model_versions = Table(
    "model_versions",
    METADATA,
    _user(primary_key=True),
    Column("model", Text(63), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run", Text(32), nullable=False, unique=True),
    Column("run_name", Text(63), nullable=False),
    Column("dataset", Text(2_000), nullable=False),
    Column("sha256", Text(64), nullable=False),
    Column("graph", Text(64), nullable=False),
    Column("scores", JSON, nullable=False),
    Column("created", Float, nullable=False),
)

aliases = Table(
    "aliases",
    METADATA,
    _user(primary_key=True),
    Column("model", Text(63), primary_key=True),
    Column("alias", Text(63), primary_key=True),
    Column("version", Integer, nullable=False),
)

deployments = Table(
    "deployments",
    METADATA,
    _user(primary_key=True),
    Column("model", Text(63), primary_key=True),
    Column("version", Integer, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("user", Text(63), nullable=False),
    Column("action", Text(40), nullable=False),
    Column("object", Text(300), nullable=False),
    Column("outcome", Text(300), nullable=False),
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
        with self.write() as connection:
            _migrate(connection)

    @classmethod
    def of_folder(cls, folder: Path) -> "Store":
        """Open the SQLite database of a folder, or make it."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(URL.create("sqlite", database=str(folder / "platform.db")).render_as_string())

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """Read in one transaction.

        Raises:
            UnavailableError: the database does not answer.
        """
        with self._begin(is_write=False) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """Change something in a transaction that no other one overlaps.

        Raises:
            UnavailableError: the database does not answer.
        """
        with self._begin(is_write=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _begin(self, *, is_write: bool) -> Iterator[Connection]:
        with contextlib.ExitStack() as opened:
            try:
                connection = opened.enter_context(self._engine.connect())
                connection = connection.execution_options(is_write=is_write)
                opened.enter_context(connection.begin())
                if is_write and connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK_KEY})")
            except OperationalError as error:
                reason = str(error.orig).partition("\n")[0]
                raise UnavailableError("the database does not answer", reason) from None
            yield connection

    @property
    def url(self) -> str:
        """URL of the database, with its password."""
        return self._engine.url.render_as_string(hide_password=False)

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
