"""`citeflow platform` and `citeflow user`: the page for those who use no terminal, its accounts."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from citeflow.cli import options
from citeflow.errors import ConfigError
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.platform.accounts import Accounts
    from citeflow.platform.backends.base import Backend
    from citeflow.platform.backends.kubernetes import KubernetesBackend

INSTALL = "pip install '.[train,kfp,platform]' in a checkout of citeflow"
PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "argon2")
URL = "http://127.0.0.1:8080"

data = click.option(
    "--data",
    type=options.Folder(),
    envvar="CITEFLOW_PLATFORM_DATA",
    default="citeflow-platform",
    show_default=True,
    show_envvar=True,
    help="Folder of accounts, uploads, runs and models.",
)
database = click.option(
    "--database",
    envvar="CITEFLOW_PLATFORM_DATABASE",
    default="",
    show_envvar=True,
    metavar="URL",
    help="Such as postgresql+psycopg://...; by default SQLite in --data.",
)
cluster = click.option(
    "--cluster",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CITEFLOW_PLATFORM_CLUSTER",
    show_envvar=True,
    metavar="FILE",
    help="Settings of a cluster, on which runs then take place (docs/platform-cluster.md).",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """Where the server listens, and where people reach it."""

    host: str
    port: int
    url: str


where = options.grouped(
    "where",
    Where,
    click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen."),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=8080,
        show_default=True,
        help="0 takes any that is free.",
    ),
    click.option(
        "--url",
        default="",
        metavar="URL",
        help="Where people reach it, such as https://citeflow.lab.org; by default host and port.",
    ),
)


@click.command(cls=options.RecordCommand)
@data
@database
@cluster
@where
@click.option(
    "--oidc",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="CITEFLOW_PLATFORM_OIDC",
    show_envvar=True,
    metavar="FILE",
    help="Settings of an identity provider through which people log in too (docs/platform.md).",
)
@click.option(
    "--idle",
    type=click.FloatRange(0.01, 10_000),
    default=1.0,
    show_default=True,
    metavar="HOURS",
    help="Without a question, after which a model gives its memory back; the next one wakes it.",
)
def platform(
    data: Path,
    database: str,
    cluster: Path | None,
    where: Where,
    oidc: Path | None,
    idle: float,
) -> None:
    """Serve a page on which people train, watch, compare and try models.

    The first start prints a link that makes the first account. Runs go on when the server ends, and
    it finds them again.
    """
    options.require(*PACKAGES, "torch", "kfp", hint=INSTALL)
    from citeflow.platform import server
    from citeflow.serving.listening import Address

    provider = None
    if oidc is not None:
        options.require("joserfc", hint=INSTALL)
        from citeflow.platform.oidc import load

        provider = load(oidc)
    backend = _open_backend(data, cluster)
    server.serve(
        data,
        Address(host=where.host, port=where.port),
        backend,
        url=where.url,
        database=database,
        oidc=provider,
        idle_s=3_600 * idle,
    )


@click.group(no_args_is_help=False)
def user() -> None:
    """Add, list, suspend or delete the users of the platform."""


@user.command()
@click.argument("name", type=options.RunName())
@click.option(
    "--size",
    type=click.Choice(["S", "M", "L"]),
    help="Of the environment; by default the user chooses.",
)
@click.option("--admin", is_flag=True, help="May manage accounts.")
@click.option("--url", default=URL, show_default=True, metavar="URL", help="Of the server.")
@data
@database
@cluster
def add(
    name: str,
    size: str | None,
    admin: bool,
    url: str,
    data: Path,
    database: str,
    cluster: Path | None,
) -> None:
    """Make an account and print the link by which its user sets a password."""
    accounts = _open(data, database)
    from citeflow.platform.accounts import ADMIN, USER

    with _refusals():
        token = accounts.add(name, role=ADMIN if admin else USER, size=size)
    if size:
        backend = _open_backend(data, cluster)
        backend.ensure_environment(name, backend.sizes()[size])
    emit({"name": name, "link": f"{url.rstrip('/')}/setup?token={token}"})


@user.command("list")
@data
@database
def list_(data: Path, database: str) -> None:
    """Print one JSON object per account."""
    for row in _open(data, database).all():
        emit(
            {
                "name": row.name,
                "role": row.role,
                "size": row.size,
                "suspended": row.suspended,
                "has_password": row.password is not None,
                "has_identity": row.subject is not None,
            }
        )


@user.command()
@click.argument("name", type=options.RunName())
@click.option("--undo", is_flag=True, help="Let the user log in, and everything go on.")
@data
@database
@cluster
def suspend(name: str, undo: bool, data: Path, database: str, cluster: Path | None) -> None:
    """Log a user out and start nothing more; on a cluster, jobs save a checkpoint and wait."""
    accounts = _open(data, database)
    from citeflow.platform.environments import Environments

    environments = Environments(accounts.store, accounts, _open_backend(data, cluster))
    with _refusals():
        environments.change_user(name, {"suspended": not undo})
    emit({"name": name, "suspended": not undo})


@user.command()
@click.argument("name", type=options.RunName())
@click.option("--force", is_flag=True, help="On a cluster, also while runs are at work.")
@data
@database
@cluster
def rm(name: str, force: bool, data: Path, database: str, cluster: Path | None) -> None:
    """Delete an account with its environment, runs and files."""
    accounts = _open(data, database)
    from citeflow.platform.environments import Environments

    with _refusals():
        accounts.check_dispensable(name)
    backend = _open_backend(data, cluster)
    active = Environments(accounts.store, accounts, backend).num_active(name)
    if active and not (force and cluster):
        hint = "cancel them first" + (", or give --force" if cluster else "")
        raise ConfigError("the user has runs at work", active, hint=hint)
    if cluster:
        _open_cluster(cluster).environments.remove(name, force=force)
    else:
        backend.remove_environment(name)
    accounts.remove(name)
    emit({"name": name, "deleted": True})


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the server would answer into an error in a line."""
    from citeflow.serving.problems import ProblemError

    try:
        yield
    except ProblemError as problem:
        raise ConfigError(problem.detail, hint=problem.hint) from None


def _open(data: Path, database: str) -> "Accounts":
    options.require("sqlalchemy", "argon2", hint=INSTALL)
    from citeflow.platform.accounts import Accounts
    from citeflow.platform.store import Store

    return Accounts(Store(database) if database else Store.of_folder(data))


def _open_backend(data: Path, cluster: Path | None) -> "Backend":
    """Return the place where runs take place: a cluster where its settings are given."""
    if cluster:
        return _open_cluster(cluster)
    from citeflow.platform.backends.local import LocalBackend

    return LocalBackend(data)


def _open_cluster(cluster: Path) -> "KubernetesBackend":
    options.require("kubernetes", hint=INSTALL)
    from citeflow.platform.backends import kubernetes

    return kubernetes.load(cluster)
