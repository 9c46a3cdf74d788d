"""The stage `train` on a cluster: the same job file and the same model as here, made by pods."""

import os
from pathlib import Path

from citeflow import files
from citeflow.config import Config
from citeflow.errors import CorruptError, NotFoundError
from citeflow.kubernetes import watcher
from citeflow.kubernetes.client import connect, own_namespace
from citeflow.kubernetes.identity import JobIdentity, Owner
from citeflow.kubernetes.job_objects import Json, render
from citeflow.kubernetes.job_spec import JobRequest, check_mounted, quantity
from citeflow.paths import RunPaths
from citeflow.training.launch import WorkerJob, check_memory_budget, make_job, write_job


def train_on_cluster(graph: Path, run: RunPaths, *, config: Config, request: JobRequest) -> Path:
    """Train in the pods of a job; the same call again takes the job over, or goes on from its checkpoint.

    Raises:
        ConfigError: the pods would not find the folder of the run.
        CiteflowError: as `launch.run`.
    """
    from citeflow.evaluation.trained_model import inputs_of
    from citeflow.graph.prepared import PreparedGraph

    spec = request.spec
    run_dir = run.folder
    check_mounted(spec, run_dir)
    task = make_job(graph, run, config)
    check_memory_budget(task, spec.processes, int(quantity(spec.memory)))
    api = connect(namespace=request.namespace)
    inputs = inputs_of(PreparedGraph.open(graph), config, spec.world_size)
    watcher.run(
        watcher.Launch(
            api=api,
            job=job_of_run(request, run_dir, api.namespace, task),
            run_dir=run_dir,
            is_complete=lambda: is_complete(run_dir / "model", inputs),
        ),
        prepare=lambda: write_job(task),
    )
    return run_dir / "model"


def job_of_run(request: JobRequest, run_dir: Path, namespace: str, task: WorkerJob) -> Json:
    """The object that is sent for a run; `task` is what its workers shall do."""
    place = JobIdentity(
        namespace=namespace,
        run_id=request.run_id,
        run_name=run_dir.name,
        job_file=str(run_dir / "job.json"),
        task_sha256=task.sha256,
        owner=this_pod(namespace),
    )
    return render(request.kind, request.spec, place)


def is_complete(model: Path, inputs: files.Json) -> bool:
    """Whether the model is there, undamaged, and made from what it shall be made from."""
    try:
        return bool(files.verify(model, "TrainedModel").inputs == inputs)
    except (NotFoundError, CorruptError, OSError):
        return False


def this_pod(namespace: str) -> Owner | None:
    """The pod that this process runs in, where the pipeline says which it is; it owns nothing in other namespaces."""
    if own_namespace() not in ("", namespace):
        return None
    for prefix in ("CITEFLOW", "KFP"):
        name, uid = os.environ.get(f"{prefix}_POD_NAME"), os.environ.get(f"{prefix}_POD_UID")
        if name and uid:
            return Owner(name=name, uid=uid)
    return None
