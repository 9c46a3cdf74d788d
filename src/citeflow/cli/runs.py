"""`citeflow runs`: the runs on Kubeflow Pipelines, listed, followed, ended."""

import argparse
from typing import TYPE_CHECKING, Any

from citeflow.cli import options
from citeflow.cli.submit import add_connection, add_wait, connected, finish
from citeflow.errors import NotFoundError
from citeflow.kubeflow.client import TERMINAL, Server
from citeflow.utils.logging import emit, log

if TYPE_CHECKING:
    from citeflow.cli.options import Commands
    from citeflow.kubernetes.client import KubeClient

CANCEL_S = 300.0
"""How long a cancelled run may take to end; each of its pods has a grace period."""


def add_to(commands: "Commands") -> None:
    """Add the command."""
    parser = commands.add_parser(
        "runs", help="list, watch, read or cancel runs on Kubeflow Pipelines", allow_abbrev=False
    )
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = options.add_command(verbs, "list", _list, "one JSON object per run, the newest first")
    listing.add_argument("--experiment", default="", metavar="NAME", help="only its runs")
    listing.add_argument(
        "--limit", type=options.positive, default=20, metavar="N", help="at most (default: 20)"
    )
    watch = _with_run(
        options.add_command(verbs, "watch", _watch, "wait for a run to end; 75 if it failed")
    )
    add_wait(watch)
    logs = _with_run(
        options.add_command(verbs, "logs", _logs, "print what the pods of a run wrote")
    )
    logs.add_argument("--follow", action="store_true", help="until the run has ended")
    logs.add_argument("--step", default="", metavar="STEP", help="only of this step, such as train")
    _with_run(
        options.add_command(
            verbs, "cancel", _cancel, "end a run and delete the jobs that it started"
        )
    )
    for each in verbs.choices.values():
        add_connection(each)


def _with_run(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("run", metavar="RUN", help="its id, or its name: the newest of that name")
    return parser


def _list(args: argparse.Namespace) -> None:
    server = connected(args)
    where: dict[str, Any] = {}
    if args.experiment:
        experiment = server.find_experiment(args.experiment)
        if experiment is None:
            raise NotFoundError("no such experiment", args.experiment)
        where["experiment_id"] = experiment.experiment_id
    for run in server.runs(limit=args.limit, **where):
        emit(_described(server, run))


def _described(server: Server, run: Any) -> dict[str, Any]:
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    times = {
        "created": run.created_at,
        "finished": run.finished_at if run.state in TERMINAL else None,
    }
    return {
        "run_id": run.run_id,
        "name": run.display_name,
        "state": run.state,
        **{name: time.isoformat() if time else None for name, time in times.items()},
        "launcher": parameters.get("launcher"),
        "url": server.run_page(run.run_id),
    }


def _watch(args: argparse.Namespace) -> None:
    server = connected(args)
    finish(server, _described(server, server.find_run(args.run)), args.timeout_minutes)


def _logs(args: argparse.Namespace) -> None:
    server = connected(args)
    run_id = server.find_run(args.run).run_id
    options.require("kubernetes")
    from citeflow.kubeflow.run_logs import RunLogs

    logs = RunLogs(client=_cluster(server), run_id=run_id, step=args.step)
    if args.follow:
        logs.follow(lambda: server.find_run(run_id).state in TERMINAL)
    elif not logs.poll():
        raise NotFoundError(
            "the run has no pods", run_id, hint="they are deleted some time after its end"
        )


def _cancel(args: argparse.Namespace) -> None:
    server = connected(args)
    run = server.find_run(args.run)
    options.require("kubernetes")
    if run.state not in TERMINAL:
        server.terminate(run.run_id)
        log("runs", "asked to end", id=run.run_id)
    deleted = _delete_jobs(_cluster(server), run.run_id)
    try:
        run = server.wait(run.run_id, timeout_s=CANCEL_S)
    finally:
        deleted += _delete_jobs(_cluster(server), run.run_id)  # what a step has created meanwhile
    emit({"run_id": run.run_id, "state": run.state, "deleted": deleted})


def _delete_jobs(api: "KubeClient", run_id: str) -> list[str]:
    """Delete what the run started: Argo ends the pods of its steps only."""
    from citeflow.kubernetes.launchers import LAUNCHERS

    mine = [
        (launcher, job.name)
        for launcher in LAUNCHERS.values()
        for job in api.jobs(launcher)
        if job.run_id == run_id
    ]
    deleted = [f"{launcher.kind}/{name}" for launcher, name in mine if api.delete(launcher, name)]
    for name in deleted:
        log("runs", "deleted", job=name)
    return deleted


def _cluster(server: Server) -> "KubeClient":
    from citeflow.kubernetes import client as api

    return api.connect(namespace=server.pods_namespace)
