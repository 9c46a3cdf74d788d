"""One rank of the training, as torchrun starts it: `torchrun -m citeflow.training.worker JOB.json`.

Where arguments follow that say what the job is, the file is not read, and only names the folder of the run.
"""

import argparse
import contextlib
import errno
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from citeflow import config as settings
from citeflow import files, paths
from citeflow.config import Config
from citeflow.errors import CiteflowError, ConfigError, error_to_dict, to_user_error
from citeflow.evaluation import trained_model
from citeflow.evaluation.calibration import calibrate
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import build_structural_features
from citeflow.evaluation.trained_model import TrainingResult
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.structural import StructuralFeatures
from citeflow.models.tensors import encoder_input, mean_and_scale
from citeflow.report import StageCost, TrainSummary, stage_costs
from citeflow.reporting.tensorboard import RunLog
from citeflow.training import checkpoint, lease
from citeflow.training.checkpoint import Progress
from citeflow.training.distributed import Group, is_lost_peer, joined
from citeflow.training.lease import Lease, LeaseLost
from citeflow.training.preemption import (
    StopRequests,
    end_undisturbed,
    is_torchrun,
    stop_with_parent,
)
from citeflow.training.resources import Watch
from citeflow.training.trainer import Training, fit
from citeflow.utils.logging import log
from citeflow.utils.system import bind

ABANDONED_S = 60
"""After so long, a claim that is half made was left by a worker that was killed."""

LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""Failures of a disk that the next attempt would meet as well."""


def main() -> None:
    """Train as the job file says.

    An error that comes again however often one tries is left in `error.json` beside the job, for whoever started it;
    after any other end of a worker, torchrun starts all of them again.
    """
    args = _arguments()
    job_file: Path = args.job
    stop_with_parent(is_torchrun)
    try:
        job = _job_of(args) if args.graph else files.read_json(job_file)
        bind(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        with joined(settings.from_dict(job["config"]).recovery.step_timeout_s) as group:
            work(group, job_file.parent, job)
    except (CiteflowError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in LASTING:
            raise
        sys.exit(_leave(to_user_error(error), job_file.parent))
    except LeaseLost as error:
        log("train", "leaves the run to another", why=error)
        sys.exit(1)
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        log("train", "has lost another worker", why=str(error).splitlines()[0])
        sys.exit(1)
    finally:
        end_undisturbed()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="citeflow.training.worker", allow_abbrev=False)
    parser.add_argument("job", type=Path, help="the job file, in the folder of the run")
    parser.add_argument("--graph", help="the PreparedGraph, in place of what the job file says")
    parser.add_argument("--log-dir", help="where TensorBoard looks")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    return parser.parse_args()


def _job_of(args: argparse.Namespace) -> files.Json:
    """The job that the arguments describe."""
    return {
        "graph": args.graph,
        "log_dir": args.log_dir,
        "config": settings.load(overrides=args.set).to_dict(),
    }


def _leave(error: CiteflowError, run_dir: Path) -> int:
    """Leave an error for whoever started the training; returns the exit code."""
    with contextlib.suppress(OSError):
        files.write_json(run_dir / "error.json", error_to_dict(error))
    log("train", "ends", error=error.what, value=error.value)
    return error.exit_code


def work(group: Group, run_dir: Path, job: files.Json) -> None:
    """Train, calibrate, and write the TrainedModel."""
    stops = StopRequests()
    graph, config = PreparedGraph.open(Path(job["graph"])), settings.from_dict(job["config"])
    inputs = trained_model.inputs_of(graph, config, group.world_size)
    start = _start(group, run_dir, inputs, launch=job.get("launch", ""))
    if start is None:
        return
    name = paths.place_of(run_dir, Path(job["log_dir"]))[1]
    with Watch(group, name, Path(job["log_dir"]), step=start.state.step) as watch:
        structural = build_structural_features(graph, config.model)
        training = _begin(group, graph, structural, config, start, Path(job["log_dir"]), stops)
        try:
            with watch.fitting(training.progress):
                fit(training)
        finally:
            if training.run_log:
                training.run_log.close()
        training.model.load_state_dict(training.best)
        if not group.is_first and group.rank % group.local_world_size == 0:
            log(
                "train", "best", valid_mrr=training.progress.best_mrr
            )  # for who reads one pod's log, as Katib does
        with stops.at_once():
            embedding_NH = embed_all(training.model, graph, group)
            calibration = None
            if group.is_first:
                calibration = calibrate(
                    training.model, embedding_NH, structural, graph.valid, loss=config.train.loss
                )
            seen = watch.gathered()
    if calibration:
        start.attempt.assert_held()
        trained_model.save(
            run_dir / "model",
            training.model,
            config=config,
            structural_features=structural.names,
            calibration=calibration,
            result=TrainingResult(
                summary=TrainSummary(**_facts(training), **seen.train),
                stages={
                    **stage_costs(graph.manifest),
                    "train": StageCost(seconds=training.progress.seconds, **seen.cost),
                },
                history=training.progress.history,
                evaluations=training.progress.evaluations,
                resources=seen.series,
            ),
            inputs=training.inputs,
        )
    group.sum(0)  # a job ends with its first worker that does


def _facts(training: Training) -> files.Json:
    """What the report says of the training."""
    progress = training.progress
    return {
        "workers": training.group.world_size,
        "epochs": progress.positives / max(1, len(training.graph.references.index_E)),
        "steps": progress.step,
        "positives": progress.positives,
        "seconds": progress.seconds,
        "positives_per_s": progress.positives / max(progress.seconds, 1e-9),
        "parameters": _num_parameters(training.model),
    }


def _num_parameters(model: LinkPredictor) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _is_done(folder: Path, inputs: files.Json) -> bool:
    return folder.exists() and bool(files.verify(folder, trained_model.KIND).inputs == inputs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """What rank 0 found on the disk, and all ranks begin with."""

    attempt: Lease
    checkpoints: Path
    state: checkpoint.State
    inputs: files.Json


def _start(group: Group, run_dir: Path, inputs: files.Json, *, launch: str) -> _Start | None:
    """Let rank 0 decide what all ranks go on from; None where the model is there already."""
    place, states = run_dir / "checkpoints", [checkpoint.State()]

    def look() -> bytes:
        if _is_done(run_dir / "model", inputs):
            log("train", "already done", path=run_dir / "model")
            return b""
        states[0] = state = checkpoint.read(place, inputs)
        attempt = lease.claim(run_dir / "attempts", launch=launch, step=state.step)
        files.delete_unfinished(place)
        for name in ("model", "error.json"):
            files.delete_unfinished(run_dir, name)
        files.delete_unfinished(run_dir / "attempts", older_s=ABANDONED_S)
        return b"%d %d" % (attempt.number, state.step)

    found = group.ask_first(look)
    if not found:
        return None
    number, step = map(int, found.split())
    progress, tensors = (
        group.ask_first(lambda: states[0].progress),
        group.ask_first(lambda: states[0].tensors),
    )
    return _Start(
        attempt=Lease(folder=run_dir / "attempts", number=number),
        checkpoints=place,
        state=checkpoint.State(step=step, progress=progress, tensors=tensors),
        inputs=inputs,
    )


def _begin(
    group: Group,
    graph: PreparedGraph,
    structural: StructuralFeatures,
    config: Config,
    start: _Start,
    log_dir: Path,
    stops: StopRequests,
) -> Training:
    if group.device.type == "cuda" and config.model.aggr == "max":
        raise ConfigError(
            "model.aggr", "max", hint="PyG has no sparse maximum on a GPU; take mean or add"
        )
    model = new_model(graph, structural, config).to(group.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr)
    progress, best = checkpoint.restore(start.state, model=model, optimizer=optimizer)
    if group.is_first:
        facts = {
            "step": progress.step,
            "attempt": start.attempt.number,
            "workers": group.world_size,
        }
        machine = {"threads": torch.get_num_threads(), "device": str(group.device)}
        log(
            "train",
            "resuming" if progress.step else "starting",
            **facts,
            parameters=_num_parameters(model),
            **machine,
        )
    return Training(
        graph=graph,
        structural=structural,
        config=config,
        group=group,
        model=model,
        optimizer=optimizer,
        progress=progress,
        best=best,
        attempt=start.attempt,
        checkpoints=start.checkpoints,
        inputs=start.inputs,
        run_log=_run_log(log_dir, progress) if group.is_first else None,
        saved=progress.place if progress.step else (-1, -1),
        stops=stops,
    )


def _run_log(log_dir: Path, progress: Progress) -> RunLog:
    """Curves that go on from a checkpoint; what was told of its step, perhaps after it was written, is told again."""
    run_log = RunLog(log_dir, purge_step=progress.step or None)
    for tell, records in (
        (run_log.step, progress.history),
        (run_log.evaluation, progress.evaluations),
    ):
        for record in records[-1:]:
            if record["step"] == progress.step:
                tell(record)
    return run_log


def new_model(
    graph: PreparedGraph, structural: StructuralFeatures, config: Config
) -> LinkPredictor:
    """An untrained model for a graph, the same on every rank."""
    torch.manual_seed(config.train.seed)
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    num_features = 1 if x_NF is None else x_NF.shape[1]
    scaled = config.train.loss == "info_nce"
    model = LinkPredictor(num_features, len(structural.names), config.model, scaled=scaled)
    if x_NF is not None:
        model.encoder.mean_F, model.encoder.scale_F = mean_and_scale(x_NF)
    return model


if __name__ == "__main__":
    main()
