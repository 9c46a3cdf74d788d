"""`citeflow runs`: the runs on Kubeflow Pipelines or of this machine, listed, followed, ended."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from citeflow.cli import live, options
from citeflow.cli.connection import Connection, connection
from citeflow.cli.submit import timeout, wait_for_run
from citeflow.errors import ConfigError, NotFoundError
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.outcome import TERMINAL
from citeflow.kubeflow.past_runs import ServerRuns, describe
from citeflow.local_runs import LocalRuns
from citeflow.paths import RunPaths
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.kubernetes.client import KubeClient

CANCEL_TIMEOUT_S = 300.0
"""How long a cancelled run may take to end; each of its pods has a grace period."""

run_argument = click.argument("run")


class PastRuns(Protocol):
    """The runs of a place, described as JSON objects."""

    def list(self, *, experiment: str, limit: int, archived: bool) -> list[dict[str, object]]:
        """Describe runs, the newest first."""

    def show(self, name: str) -> dict[str, object]:
        """Describe a run in full."""

    def archive(self, name: str, *, undo: bool) -> dict[str, object]:
        """Leave a run out of the list, or put it back."""

    def delete(self, name: str) -> dict[str, object]:
        """Delete an archived run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where runs are."""

    local: bool
    data_root: Path

    def open(self, connection: Connection) -> PastRuns:
        """Return the runs of this machine, or of the server that answers."""
        return LocalRuns(self.data_root) if self.local else ServerRuns(connection.connect())


place = options.grouped(
    "place",
    Place,
    click.option("--local", is_flag=True, help="The runs below --data-root, not a server's."),
    options.data_root,
)


@click.group(no_args_is_help=False)
def runs() -> None:
    """List, show, watch, read, cancel, archive or delete runs.

    RUN is the id of a run on Kubeflow Pipelines, or a name: the newest run of that name. With
    --local it is the name of a run of this machine, or EXPERIMENT/RUN.
    """


@runs.command("list", cls=options.RecordCommand)
@click.option("--experiment", default="", metavar="NAME", help="Only its runs.")
@click.option(
    "--limit", type=options.POSITIVE, default=20, show_default=True, metavar="N", help="At most."
)
@click.option("--archived", is_flag=True, help="Those that are archived, not the others.")
@place
@connection
def list_(
    experiment: str, limit: int, archived: bool, place: Place, connection: Connection
) -> None:
    """Print one JSON object per run, the newest first."""
    past_runs = place.open(connection)
    for run in past_runs.list(experiment=experiment, limit=limit, archived=archived):
        emit(run)


@runs.command(cls=options.RecordCommand)
@run_argument
@live.option
@place
@connection
def show(run: str, with_page: bool, place: Place, connection: Connection) -> None:
    """Print all that is known of a run: state, times, settings, scores.

    With --local --open a page shows its curves, log and report too, until Ctrl-C.
    """
    if with_page and not place.local:
        raise ConfigError("--open", run, hint="with --local; a server has its own page")
    if with_page:
        live.require()
    emit(place.open(connection).show(run))
    if with_page:
        live.show(RunPaths(place.data_root, run))


@runs.command(cls=options.RecordCommand)
@run_argument
@click.option("--undo", is_flag=True, help="Put it back among the others.")
@place
@connection
def archive(run: str, undo: bool, place: Place, connection: Connection) -> None:
    """Leave a run out of the list; nothing of it is deleted."""
    emit(place.open(connection).archive(run, undo=undo))


@runs.command(cls=options.RecordCommand)
@run_argument
@place
@connection
def rm(run: str, place: Place, connection: Connection) -> None:
    """Delete a run that is archived, for good.

    On a server that is its record: the model and the report stay on the volume. With --local it is
    the folder of the run and its logs.
    """
    emit(place.open(connection).delete(run))


@runs.command(cls=options.RecordCommand)
@run_argument
@timeout
@connection
def watch(run: str, timeout_minutes: int, connection: Connection) -> None:
    """Wait for a run to end; exit code 75 if it failed."""
    client = connection.connect()
    found = client.get_run(run)
    wait_for_run(client, found.run_id, describe(client, found), timeout_minutes)


@runs.command(cls=options.RecordCommand)
@run_argument
@click.option("--follow", is_flag=True, help="Until the run has ended.")
@click.option("--step", default="", metavar="STEP", help="Only of this stage, such as train.")
@connection
def logs(run: str, follow: bool, step: str, connection: Connection) -> None:
    """Print what the pods of a run wrote."""
    client = connection.connect()
    run_id = client.get_run(run).run_id
    options.require("kubernetes")
    from citeflow.kubeflow.run_logs import RunLogs

    run_logs = RunLogs(client=_connect_cluster(client), run_id=run_id, step=step)
    if follow:
        run_logs.follow(lambda: client.get_run(run_id).state in TERMINAL)
    elif not run_logs.poll():
        hint = "they are deleted some time after its end"
        raise NotFoundError("the run has no pods", run_id, hint=hint)


@runs.command(cls=options.RecordCommand)
@run_argument
@connection
def cancel(run: str, connection: Connection) -> None:
    """End a run and delete the jobs that it started."""
    client = connection.connect()
    found = client.get_run(run)
    options.require("kubernetes")
    from citeflow.kubernetes.reaper import delete_jobs_of_run

    if found.state not in TERMINAL:
        client.terminate_run(found.run_id)
        log("runs", "asked to end", id=found.run_id)
    cluster = _connect_cluster(client)
    deleted = delete_jobs_of_run(cluster, found.run_id)
    try:
        found = client.wait_for_run(found.run_id, timeout_s=CANCEL_TIMEOUT_S)
    finally:
        # A step may have created another one meanwhile.
        deleted += delete_jobs_of_run(cluster, found.run_id)
    emit({"run_id": found.run_id, "state": found.state, "deleted": deleted})


def _connect_cluster(client: KfpClient) -> "KubeClient":
    from citeflow.kubernetes import client as kubernetes

    return kubernetes.connect(namespace=client.pods_namespace)
