"""`citeflow runs`: the runs on Kubeflow Pipelines, listed, followed, ended."""

from typing import TYPE_CHECKING, Any

import click

from citeflow.cli import options
from citeflow.cli.submit import timeout, wait_for_run
from citeflow.errors import NotFoundError
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.outcome import TERMINAL
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.kubernetes.client import KubeClient

CANCEL_TIMEOUT_S = 300.0
"""How long a cancelled run may take to end; each of its pods has a grace period."""

run_argument = click.argument("run")


@click.group(no_args_is_help=False)
def runs() -> None:
    """List, watch, read or cancel runs on Kubeflow Pipelines.

    RUN is the id of a run, or a name: the newest run of that name.
    """


@runs.command("list", cls=options.RecordCommand)
@click.option("--experiment", default="", metavar="NAME", help="Only its runs.")
@click.option(
    "--limit", type=options.POSITIVE, default=20, show_default=True, metavar="N", help="At most."
)
@options.connection
def list_(experiment: str, limit: int, connection: options.Connection) -> None:
    """Print one JSON object per run, the newest first."""
    client = connection.connect()
    experiment_id = ""
    if experiment:
        found = client.find_experiment(experiment)
        if found is None:
            raise NotFoundError("no such experiment", experiment)
        experiment_id = found.experiment_id
    for run in client.list_runs(experiment_id=experiment_id, limit=limit):
        emit(_describe(client, run))


@runs.command(cls=options.RecordCommand)
@run_argument
@timeout
@options.connection
def watch(run: str, timeout_minutes: int, connection: options.Connection) -> None:
    """Wait for a run to end; exit code 75 if it failed."""
    client = connection.connect()
    found = client.get_run(run)
    wait_for_run(client, found.run_id, _describe(client, found), timeout_minutes)


@runs.command(cls=options.RecordCommand)
@run_argument
@click.option("--follow", is_flag=True, help="Until the run has ended.")
@click.option("--step", default="", metavar="STEP", help="Only of this stage, such as train.")
@options.connection
def logs(run: str, follow: bool, step: str, connection: options.Connection) -> None:
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
@options.connection
def cancel(run: str, connection: options.Connection) -> None:
    """End a run and delete the jobs that it started."""
    client = connection.connect()
    found = client.get_run(run)
    options.require("kubernetes")
    if found.state not in TERMINAL:
        client.terminate_run(found.run_id)
        log("runs", "asked to end", id=found.run_id)
    cluster = _connect_cluster(client)
    deleted = _delete_jobs(cluster, found.run_id)
    try:
        found = client.wait_for_run(found.run_id, timeout_s=CANCEL_TIMEOUT_S)
    finally:
        # A step may have created another one meanwhile.
        deleted += _delete_jobs(cluster, found.run_id)
    emit({"run_id": found.run_id, "state": found.state, "deleted": deleted})


def _describe(client: KfpClient, run: Any) -> dict[str, Any]:
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    # The server gives a run that has not ended a time in 1970.
    finished_at = run.finished_at if run.state in TERMINAL else None
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        "created": run.created_at.isoformat() if run.created_at else None,
        "finished": finished_at.isoformat() if finished_at else None,
        "launcher": parameters.get("launcher"),
        "url": client.run_url(run.run_id),
    }


def _delete_jobs(cluster: "KubeClient", run_id: str) -> list[str]:
    """Delete the jobs of a run: Argo ends the pods of its steps only."""
    from citeflow.kubernetes.launchers import LAUNCHERS

    deleted = []
    for launcher in LAUNCHERS.values():
        for job in cluster.jobs(launcher):
            if job.run_id == run_id and cluster.delete(launcher, job.name):
                name = f"{launcher.kind}/{job.name}"
                log("runs", "deleted", job=name)
                deleted.append(name)
    return deleted


def _connect_cluster(client: KfpClient) -> "KubeClient":
    from citeflow.kubernetes import client as kubernetes

    return kubernetes.connect(namespace=client.pods_namespace)
