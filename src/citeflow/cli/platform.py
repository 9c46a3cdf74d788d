"""`citeflow platform` and `citeflow user`: the page for those who use no terminal, its accounts."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from citeflow.cli import options
from citeflow.utils.logging import emit

if TYPE_CHECKING:
    from citeflow.platform.accounts import Accounts

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


@click.command()
@data
@database
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="0 takes any that is free.",
)
@click.option(
    "--url",
    default="",
    metavar="URL",
    help="Where people reach it, such as https://citeflow.lab.org; by default host and port.",
)
def platform(data: Path, database: str, host: str, port: int, url: str) -> None:
    """Serve a page on which people train, watch, compare and try models.

    The first start prints a link that makes the first account. Runs go on when the server ends, and
    it finds them again.
    """
    options.require(*PACKAGES, "torch", "kfp", hint=INSTALL)
    from citeflow.platform import server
    from citeflow.serving.listening import Address

    server.serve(data, Address(host=host, port=port), url=url, database=database)


@click.group(no_args_is_help=False)
def user() -> None:
    """Add or list the users of the platform."""


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
def add(name: str, size: str | None, admin: bool, url: str, data: Path, database: str) -> None:
    """Make an account and print the link by which its user sets a password."""
    accounts = _open(data, database)
    from citeflow.platform.accounts import ADMIN, USER

    token = accounts.add(name, role=ADMIN if admin else USER, size=size)
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
            }
        )


def _open(data: Path, database: str) -> "Accounts":
    options.require("sqlalchemy", "argon2", hint=INSTALL)
    from citeflow.platform.accounts import Accounts
    from citeflow.platform.store import Store

    return Accounts(Store(database) if database else Store.of_folder(data))
