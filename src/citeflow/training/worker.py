"""One rank of the training, as torchrun starts it: `torchrun -m citeflow.training.worker JOB.json`."""

import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from citeflow import config as settings
from citeflow import files
from citeflow.config import Config
from citeflow.console import log
from citeflow.cores import bind
from citeflow.errors import CiteflowError, ConfigError, to_record
from citeflow.evaluation import model_files
from citeflow.evaluation.calibration import calibrate
from citeflow.evaluation.embedding import embed_all
from citeflow.evaluation.scoring import evidence_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.learning.evidence import Evidence
from citeflow.learning.model import LinkPredictor
from citeflow.learning.tensors import encoder_input, mean_and_scale
from citeflow.reporting.tensorboard import RunLog
from citeflow.training import checkpoint
from citeflow.training.group import Group, joined
from citeflow.training.loop import Training, fit


def main() -> None:
    """Train as the job file says; a failure leaves its cause in `error.json` beside the job."""
    job_file = Path(sys.argv[1])
    job = json.loads(job_file.read_text())
    try:
        bind(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]))
        with joined() as group:
            work(group, job_file.parent, job)
    except CiteflowError as error:
        files.write_json(job_file.parent / "error.json", to_record(error))
        sys.exit(error.exit_code)


def work(group: Group, run_dir: Path, job: files.Json) -> None:
    """Train, calibrate, and write the TrainedModel."""
    graph, config = PreparedGraph.open(Path(job["graph"])), settings.from_dict(job["config"])
    if _is_done(run_dir / "model", model_files.inputs_of(graph, config, group.world_size)):
        log("train", "already done", path=run_dir / "model")
        return
    evidence = evidence_of(graph, config.model)
    training = _begin(group, graph, evidence, config, run_dir, Path(job["log_dir"]))
    try:
        fit(training)
    finally:
        if training.run_log:
            training.run_log.close()
    training.model.load_state_dict(training.best)
    embedding_NH = embed_all(training.model, graph, group)
    if group.is_first:
        calibration = calibrate(training.model, embedding_NH, evidence, graph.valid, loss=config.train.loss)
        model_files.save(
            run_dir / "model",
            training.model,
            config=config,
            evidence=evidence,
            calibration=calibration,
            train=_facts(training),
            peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            history=training.progress.history,
            evaluations=training.progress.evaluations,
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
    return folder.exists() and bool(files.verify(folder, model_files.KIND)["inputs"] == inputs)


def _begin(
    group: Group, graph: PreparedGraph, evidence: Evidence, config: Config, run_dir: Path, log_dir: Path
) -> Training:
    if group.device.type == "cuda" and config.model.aggregation == "max":
        raise ConfigError("model.aggregation", "max", hint="PyG has no sparse maximum on a GPU; take mean or add")
    model = new_model(graph, evidence, config).to(group.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.lr)
    inputs = model_files.inputs_of(graph, config, group.world_size)
    folder = run_dir / "checkpoint"
    progress, best = checkpoint.load(folder, model=model, optimizer=optimizer, inputs=inputs)
    if group.is_first:
        log("train", "resuming" if progress.step else "starting", step=progress.step, workers=group.world_size,
            parameters=_num_parameters(model), threads=torch.get_num_threads(), device=str(group.device))  # fmt: skip
    return Training(
        graph=graph,
        evidence=evidence,
        config=config,
        group=group,
        model=model,
        optimizer=optimizer,
        progress=progress,
        best=best,
        checkpoint=folder,
        inputs=inputs,
        run_log=RunLog(log_dir, purge_step=progress.step + 1 if progress.step else None) if group.is_first else None,
        should_stop=StopRequests(),
    )


def new_model(graph: PreparedGraph, evidence: Evidence, config: Config) -> LinkPredictor:
    """An untrained model for a graph, the same on every rank."""
    torch.manual_seed(config.train.seed)
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    num_features = 1 if x_NF is None else x_NF.shape[1]
    scaled = config.train.loss == "contrastive"
    model = LinkPredictor(num_features, len(evidence.names), config.model, scaled=scaled)
    if x_NF is not None:
        model.encoder.mean_F, model.encoder.scale_F = mean_and_scale(x_NF)
    return model


class StopRequests:
    """Remembers a SIGTERM, or a Ctrl-C that every process of a terminal gets, until the ranks agree after a step."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    def _ask(self, *_: object) -> None:
        self._asked = True


if __name__ == "__main__":
    main()
