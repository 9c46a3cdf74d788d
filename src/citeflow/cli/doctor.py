"""`citeflow doctor`: prerequisites that are missing, and what to do about each."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from citeflow.cli import options
from citeflow.cli.connection import Connection, connection
from citeflow.doctor import Finding, local, machine, show
from citeflow.errors import ConfigError, MissingPackageError, UnavailableError
from citeflow.kubernetes.launchers import AUTO, LAUNCHERS
from citeflow.utils.logging import emit


@click.command(cls=options.RecordCommand)
@click.option(
    "--launcher",
    type=click.Choice([AUTO, *LAUNCHERS]),
    default=AUTO,
    show_default=True,
    help="Kind of the job; auto looks at the first that the cluster has.",
)
@click.option(
    "--service-account", default="", metavar="NAME", help="Whose rights; by default your own."
)
@click.option(
    "--local",
    "is_local",
    is_flag=True,
    help="Check this machine only, and say what a local run ignores.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per check.")
@options.data_root
@connection
def doctor(
    launcher: str,
    service_account: str,
    is_local: bool,
    as_json: bool,
    data_root: Path,
    connection: Connection,
) -> None:
    """Name what this machine or the cluster lacks."""
    missing = []
    for finding in machine.check(data_root, trains_here=is_local):
        missing += _report(finding, as_json)
    findings = local.check() if is_local else _check_cluster(launcher, service_account, connection)
    for finding in findings:
        missing += _report(finding, as_json)
    if missing:
        raise UnavailableError("missing", ", ".join(missing), hint="the lines above say what to do")


def _report(finding: Finding, as_json: bool) -> list[str]:
    """Print a finding; return what is missing."""
    if as_json:
        emit(asdict(finding))
    else:
        show(finding)
    return [finding.what] if finding.status == "missing" else []


def _check_cluster(
    launcher: str, service_account: str, connection: Connection
) -> Iterator[Finding]:
    """Check the cluster, and Kubeflow Pipelines where there may be some."""
    try:
        options.require("kfp", "kubernetes", "kubeflow")
    except MissingPackageError as error:
        value = f"not looked at: no package {error.value}"
        yield Finding(status="note", what="cluster", value=value, hint=error.hint)
        return
    from citeflow.doctor import cluster, pipelines
    from citeflow.kubernetes.client import connect

    is_there = True
    try:
        client = connect(namespace=connection.namespace or _default_namespace())
    except ConfigError as error:
        is_there = False
        is_wanted = connection.namespace or service_account
        yield Finding(
            status="missing" if is_wanted else "note",
            what="cluster",
            value=f"not looked at: {error.what}: {error.value}",
            hint=error.hint,
        )
    else:
        try:
            for finding in cluster.check(
                client, launcher=LAUNCHERS.get(launcher), service_account=service_account
            ):
                is_there = is_there and finding.what != "cluster"
                yield finding
        finally:
            client.api.close()
    if is_there or connection.host or os.environ.get("KF_PIPELINES_ENDPOINT"):
        yield from pipelines.check(connection.connect)


def _default_namespace() -> str:
    """Return that of this pod, which `connect` finds, or that of Kubeflow Pipelines alone."""
    from citeflow.kubeflow.connection import STANDALONE
    from citeflow.kubernetes.client import SERVICE_ACCOUNT

    return "" if (SERVICE_ACCOUNT / "token").is_file() else STANDALONE
