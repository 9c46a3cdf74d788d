"""The options by which a command reaches a server of Kubeflow Pipelines."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from citeflow.cli import options
from citeflow.errors import ConfigError
from citeflow.utils.logging import redact_url


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """A server of Kubeflow Pipelines, and the credentials for it."""

    host: str
    namespace: str
    token_file: Path | None
    ssl_ca_cert: Path | None

    def connect(self) -> Any:
        """Return a KfpClient.

        Raises:
            ConfigError: the host holds a secret, or the server refuses us.
            MissingPackageError: kfp is not installed.
            UnavailableError: the server does not answer.
        """
        from citeflow.kubeflow.connection import connect

        shown = redact_url(self.host)
        if shown.rstrip("/") != self.host.rstrip("/"):
            what = "no user, password or query in --host"
            raise ConfigError(what, shown, hint="--token-file FILE")
        return connect(**dataclasses.asdict(self))


connection = options.grouped(
    "connection",
    Connection,
    click.option(
        "--host",
        default="",
        metavar="URL",
        help="Of the server's API or UI; by default $KF_PIPELINES_ENDPOINT, or as kfp finds it.",
    ),
    click.option(
        "--namespace",
        default="",
        metavar="NS",
        help="Of your profile, or of the pods; by default kubeflow.",
    ),
    click.option(
        "--token-file",
        type=options.FILE,
        metavar="FILE",
        help="Bearer token; read again when it changes.",
    ),
    click.option(
        "--ssl-ca-cert",
        type=options.FILE,
        metavar="FILE",
        help="Certificate authority of the server, PEM.",
    ),
)
