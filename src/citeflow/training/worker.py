"""One rank of a training, as torchrun starts it: `torchrun -m citeflow.training.worker JOB.json`.

Where arguments follow that describe the job, the file is not read, and only names the folder of
the run.
"""

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist
from pydantic import JsonValue

from citeflow import config, files, own_model
from citeflow.errors import CiteflowError, error_to_dict, to_user_error
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.training import checkpoint, lease
from citeflow.training.checkpoint import SavedState
from citeflow.training.distributed import Group, init_group, is_lost_peer
from citeflow.training.handover import Handover
from citeflow.training.launch import WorkerJob, check_memory_budget, make_job, read_job
from citeflow.training.lease import LeaseLost
from citeflow.training.preemption import (
    LOST_PEER,
    PeerLost,
    PreemptionHandler,
    ignore_signals,
    is_torchrun,
    stop_with_parent,
)
from citeflow.training.progress_report import report_progress
from citeflow.training.resources import ResourceMonitor
from citeflow.training.standby import seat
from citeflow.training.trainer import ResumePoint, Trainer
from citeflow.utils.logging import log
from citeflow.utils.system import bind_to_cores, memory_limit

MODEL = "TrainedModel"
ERROR_FILE = "error.json"

ABANDONED_S = 60
"""After so long, a lease that is half written was left by a worker that was killed."""

LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Failures of a disk that the next start of the workers would meet as well."""


def main(argv: Sequence[str] | None = None) -> None:
    """Train as the job file says."""
    if dist.is_torchelastic_launched():
        stop_with_parent(is_torchrun)
    job_file: Path = _parser().parse_args(argv).job
    with report_errors(job_file.with_name(ERROR_FILE)):
        job = parse_job(argv)
        bind_to_cores(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        here = seat()
        store = here.meet() if here else None
        with init_group(job.recovery.step_timeout_s, store) as group:
            train(job, group, here.handover if here else None)
        if group.is_main:
            evaluate_own_model(job)


def preload(argv: Sequence[str] | None = None) -> None:
    """Import what a worker needs, before it is forked, and open its data once.

    What is wrong with them is left for the worker to report.
    """
    with contextlib.suppress(Exception):
        job = parse_job(argv)
        get_task(job.task).open(job.data, job.config, data_root=job.data_root)


def train(job: WorkerJob, group: Group, handover: Handover | None = None) -> None:
    """Train as one of the ranks, from where an earlier start has ended.

    Args:
        job: what to train.
        group: the process group.
        handover: where the state is left for the next start of the workers.
    """
    preemption = PreemptionHandler()
    task = get_task(job.task).open(job.data, job.config, data_root=job.data_root)
    start = resume_point(group, job, task.inputs(group.world_size), handover)
    if start is None:
        return
    if group.is_local_main:
        check_memory_budget(job, group.local_world_size, memory_limit())
    with ResourceMonitor(group, job.paths, task.names, step=start.state.step) as monitor:
        trainer = Trainer(
            task,
            job.paths,
            start,
            group=group,
            preemption=preemption,
            checkpoint_steps=job.recovery.checkpoint_steps,
        )
        with report_progress(trainer):
            with monitor.fitting(trainer.progress), _handing_over(trainer, handover):
                trainer.fit()
            trainer.load_best()
            if group.is_local_main and not group.is_main:
                # Katib reads the score from the log of one pod, which need not be rank 0's.
                log("train", "best", **{task.names.score: trainer.progress.best_score})
            with preemption.immediate():
                trainer.trainable.finish()
                resources = monitor.gather()
    if group.is_main:
        start.lease.assert_held()
        trainer.trainable.save(job.paths.model, trainer.finished(resources))
    # The operator takes a job for complete when its first worker has ended.
    group.barrier()


@contextlib.contextmanager
def _handing_over(trainer: Trainer, handover: Handover | None) -> Iterator[None]:
    """Leave the state where the block ends early, which it does when another worker is lost."""
    try:
        yield
    except BaseException:
        if handover is not None:
            trainer.leave(handover)
        raise


def evaluate_own_model(job: WorkerJob) -> None:
    """Measure a model with code of its own where that code may run, if nobody has.

    The stage evaluate, which runs no such code, then finds the report.
    """
    run = job.paths
    if job.has_own_code and not own_model.is_evaluated(run.model, run.report):
        get_task(job.task).evaluate(run.model, data=job.data, run=run, runs_code=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="citeflow.training.worker", allow_abbrev=False)
    parser.add_argument("job", type=Path, help="job.json in the folder of the run")
    parser.add_argument("--graph", type=Path, help="the PreparedGraph, instead of a job file")
    parser.add_argument("--data-root", type=Path, help="folder that holds the runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    return parser


def parse_job(argv: Sequence[str] | None = None) -> WorkerJob:
    """Read the job of the file, or the one that the arguments describe."""
    args = _parser().parse_args(argv)
    if args.graph is None:
        return read_job(args.job)
    run = RunPaths.of_folder(args.data_root, args.job.parent)
    return make_job(args.graph, run, config.load(overrides=args.set))


@contextlib.contextmanager
def report_errors(file: Path) -> Iterator[None]:
    """End the process on an error within the block.

    An error that would come again is written to the file for the launcher, which then gives up.
    After any other end of a worker, torchrun starts all of them again.
    """
    try:
        yield
    except (CiteflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in LASTING:
            raise
        reported = to_user_error(error)
        with contextlib.suppress(OSError):
            files.write_json(file, error_to_dict(reported))
        log("train", "ends", error=reported.what, value=reported.value)
        sys.exit(reported.exit_code)
    except LeaseLost as error:
        log("train", "leaves the run to another", why=error)
        sys.exit(1)
    except PeerLost:
        log("train", "has lost another worker", why="its standby says so")
        raise
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        log("train", "has lost another worker", why=_reason(error))
        sys.exit(LOST_PEER)
    finally:
        ignore_signals()


def _reason(error: RuntimeError) -> str:
    """Return what an error of gloo says, without the advice that follows."""
    return str(error).partition("\n")[0].partition(". This is typically")[0]


def resume_point(
    group: Group,
    job: WorkerJob,
    inputs: dict[str, JsonValue],
    handover: Handover | None = None,
) -> ResumePoint | None:
    """Let rank 0 acquire the run, and find the newest state for all ranks.

    That is one that a rank has handed over, or that of the newest checkpoint, which rank 0 reads.

    Returns:
        What to resume from; None where the model is there already.
    """
    run = job.paths
    left = handover.find() if handover else None
    keys = [(0, 0)]
    if handover is not None:
        keys = group.all_gather_object((left.step, left.validations) if left else (0, 0))
    newest = max(keys)

    def acquire() -> ResumePoint | None:
        if run.model.exists() and files.verify(run.model, MODEL).inputs == inputs:
            log("train", "already done", path=run.model)
            return None
        is_handed_over = newest[0] >= max(1, checkpoint.newest_step(run.checkpoints))
        if is_handed_over:
            state = SavedState(step=newest[0], validations=newest[1])
        else:
            state = checkpoint.read(run.checkpoints, inputs)
        acquired = lease.acquire(run.leases, launch=job.launch, step=state.step)
        files.delete_unfinished(run.checkpoints)
        for path in (run.model, run.error_file):
            files.delete_unfinished(run.folder, path.name)
        files.delete_unfinished(run.leases, older_s=ABANDONED_S)
        return ResumePoint(
            lease=acquired, inputs=inputs, state=state, is_handed_over=is_handed_over
        )

    start = group.broadcast_object(acquire)
    if start is None or not start.is_handed_over:
        return start
    state = group.broadcast_object(lambda: left, source=keys.index(newest))
    assert state is not None
    return replace(start, state=state)


if __name__ == "__main__":
    main()
