"""The stage `train` on a cluster: the same task and the same model as here, made by pods."""

import dataclasses
import os
from pathlib import Path

from citeflow import files
from citeflow.config import TaskConfig
from citeflow.errors import CorruptError, NotFoundError
from citeflow.kubernetes.client import connect, own_namespace
from citeflow.kubernetes.identity import JobIdentity, Owner
from citeflow.kubernetes.job_spec import AUTO, JobRequest, check_mounted, quantity
from citeflow.kubernetes.job_status import KubeObject
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.watcher import JobWatcher
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.training.launch import (
    WorkerJob,
    check_memory_budget,
    make_job,
    out_of_memory,
    write_job,
)
from citeflow.utils.logging import log


def train_on_cluster(data: Path, run: RunPaths, *, config: TaskConfig, request: JobRequest) -> Path:
    """Train in the pods of a job; repeated, adopt that job or resume from its checkpoint.

    Args:
        data: what the task's `preprocess` has made, such as a PreparedGraph.
        run: paths of the run.
        config: all settings.
        request: the job.

    Returns:
        The TrainedModel.

    Raises:
        ConfigError: the pods would not find the folder of the run.
        CiteflowError: as `JobWatcher.train`.
    """
    worker_job = make_job(data, run, config)
    request = with_memory(request, worker_job)
    spec = request.spec
    check_mounted(spec, run.folder)
    allowed = int(quantity(spec.memory))
    check_memory_budget(worker_job, spec.processes, allowed)
    client = connect(namespace=request.namespace)
    log("launch", "asks for", pods=spec.workers, cpu=spec.cpu, memory=spec.memory)
    inputs = get_task(config.task).open(data, worker_job.config).inputs(spec.world_size)
    watcher = JobWatcher(
        client=client,
        launcher=LAUNCHERS[request.launcher],
        spec=spec,
        job=render_job(request, run, client.namespace, worker_job),
        run=run,
        is_complete=lambda: is_complete(run.model, inputs),
        out_of_memory=lambda: out_of_memory(
            worker_job, spec.processes, allowed, hint="raise memory in `job`"
        ),
    )
    watcher.train(prepare=lambda: write_job(worker_job))
    return run.model


def with_memory(request: JobRequest, worker_job: WorkerJob) -> JobRequest:
    """Return a request whose pods have memory for the workers, where it does not say how much."""
    spec = request.spec
    if spec.memory != AUTO:
        return request
    task = get_task(worker_job.task)
    needed = task.memory_needed(worker_job.data, worker_job.config, spec.processes)
    needed += LAUNCHERS[request.launcher].memory_overhead
    return dataclasses.replace(request, spec=spec.sized(needed))


def render_job(
    request: JobRequest, run: RunPaths, namespace: str, worker_job: WorkerJob
) -> KubeObject:
    """Render the job of a run; `worker_job` is what its workers read."""
    identity = JobIdentity(
        namespace=namespace,
        run_id=request.run_id,
        run_name=run.folder.name,
        job_file=str(run.job_file),
        task_sha256=worker_job.sha256,
        owner=owner_of_jobs(namespace),
    )
    return LAUNCHERS[request.launcher].render(request.spec, identity)


def is_complete(model: Path, inputs: files.Json) -> bool:
    """Tell whether the model is there, undamaged, and made from these inputs."""
    try:
        return bool(files.verify(model, "TrainedModel").inputs == inputs)
    except (NotFoundError, CorruptError, OSError):
        return False


def owner_of_jobs(namespace: str) -> Owner | None:
    """Return the pod that this process runs in, where the pipeline names it.

    It owns jobs of its own namespace only: Kubernetes deletes what an unknown pod owns.
    """
    if own_namespace() not in ("", namespace):
        return None
    for prefix in ("CITEFLOW", "KFP"):
        name = os.environ.get(f"{prefix}_POD_NAME")
        uid = os.environ.get(f"{prefix}_POD_UID")
        if name and uid:
            return Owner(name=name, uid=uid)
    return None
