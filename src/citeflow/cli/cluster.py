"""`citeflow launch` and `citeflow reap`: jobs on a cluster, without a pipeline."""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import yaml

from citeflow import files
from citeflow.artifacts import TRAINED_MODEL
from citeflow.cli import options
from citeflow.cli.stages import RUN_ID
from citeflow.errors import ConfigError, NotFoundError
from citeflow.kubernetes import job_spec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.utils.logging import emit

REAP_PATIENCE_S = 60.0

launcher = click.option(
    "--launcher",
    type=click.Choice(list(LAUNCHERS)),
    default=next(iter(LAUNCHERS)),
    show_default=True,
    help="Kind of the job.",
)

JOB_DEFAULTS = job_spec.to_yaml(job_spec.JobSpec())


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """The job that trains."""

    run_id: str
    launcher: str
    job: str
    namespace: str
    workers: int


job_options = options.grouped(
    "job",
    JobOptions,
    click.option(
        "--run-id", default=RUN_ID, metavar="ID", help="Id of the pipeline run, if there is one."
    ),
    launcher,
    options.job,
    options.namespace,
    options.workers,
)


@click.command(
    cls=options.RecordCommand,
    epilog=f"\b\nSettings of a job and their defaults, for --job:\n\b\n{JOB_DEFAULTS}",
)
@click.argument("graph", type=options.Folder())
@options.run_name
@job_options
@click.option("--dry-run", is_flag=True, help="Print the object that would be sent, and end.")
@options.data_root
@options.settings
def launch(
    graph: Path,
    run_name: str,
    job: JobOptions,
    dry_run: bool,
    data_root: Path,
    settings: options.Settings,
) -> None:
    """Train in the pods of a job on a cluster.

    GRAPH is the folder that `preprocess` made, at the path where the pods see it.
    """
    resolved = settings.resolve()
    run = RunPaths(data_root, run_name)
    options.require("kubernetes", "kubeflow")
    from citeflow.kubernetes.job_spec import JobRequest
    from citeflow.kubernetes.launch import render_job, train_on_cluster, with_memory
    from citeflow.training.launch import make_job

    spec = job_spec.from_yaml(job.job, workers=job.workers)
    job_spec.check_mounted(spec, run.folder)
    request = JobRequest(
        launcher=job.launcher, spec=spec, run_id=job.run_id, namespace=job.namespace
    )
    if dry_run:
        worker_job = make_job(graph, run, resolved)
        # Pods may see a graph that this machine does not; then its memory is the smallest.
        with contextlib.suppress(NotFoundError):
            request = with_memory(request, worker_job)
        rendered = render_job(request, run, _namespace(job.namespace), worker_job)
        yaml.safe_dump(rendered, sys.stdout, sort_keys=False)
        return
    files.read_manifest(graph, get_task(resolved.task).prepared_kind)
    options.require("torch")
    folder = train_on_cluster(graph, run, config=resolved, request=request)
    emit({"path": str(folder), **files.read_manifest(folder, TRAINED_MODEL).facts})


@click.command(cls=options.RecordCommand)
@options.namespace
@click.option("--dry-run", is_flag=True, help="Only say which.")
def reap(namespace: str, dry_run: bool) -> None:
    """Delete jobs whose pipeline run or step has ended."""
    options.require("kubernetes")
    from citeflow.kubernetes.client import connect
    from citeflow.kubernetes.reaper import reap as delete_orphans

    api = connect(namespace=namespace, patience_s=REAP_PATIENCE_S)
    emit({"deleted": delete_orphans(api, dry_run=dry_run)})


def _namespace(namespace: str) -> str:
    """Return the namespace of a job without asking the cluster."""
    from citeflow.kubernetes.client import connect

    with contextlib.suppress(ConfigError):
        return connect(namespace=namespace).namespace
    return namespace or "default"
