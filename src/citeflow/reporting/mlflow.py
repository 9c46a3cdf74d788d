"""A published run in MLflow, where MLFLOW_TRACKING_URI is set; without it, mlflow is not imported.

All results are on disk before MLflow is asked, so a server that is away costs only its copy of
them, and a repetition. A repetition completes the same run: it is found again by a tag that is
computed from the run's name and its model. `MlflowClient` and not the fluent API, which keeps its
run in global state, takes MLFLOW_RUN_ID for the run itself, and cannot set when a run began.
"""

import contextlib
import json
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow import files
from citeflow.errors import (
    CorruptError,
    NotFoundError,
    UnavailableError,
)
from citeflow.paths import RunPaths
from citeflow.report import Curves, Report, RunReport
from citeflow.reporting import formatting, mlflow_client, registered_models
from citeflow.reporting.registered_models import Scores
from citeflow.utils.logging import log, redact_url

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Experiment, Metric, Run

KFP_RUN_ID = "CITEFLOW_KFP_RUN_ID"
"""Variable with the id of the run of Kubeflow Pipelines, if there is one."""

EXPERIMENT = "citeflow"
KEY = "citeflow.key"
"""Tag by which a run is found again."""

FINISHED = "FINISHED"
MAX_POINTS = 300
"""Of a curve: a server keeps each in a row of its database."""
METRICS_PER_REQUEST = 500
"""MLflow takes 1000, in at most 1 MB."""
DIGEST_LENGTH = 36
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Everything that MLflow is told of a published run; each task reads its own."""

    report: RunReport
    headline: str
    """The result in a sentence or two."""
    model_type: str
    prepared_kind: str
    """Kind of the artifact that the model was trained on."""
    facts: Mapping[str, object]
    """Facts of that artifact."""
    curves: Curves
    validations: Sequence[str]
    """Figures of `curves.evaluations` that become curves."""
    figures: Mapping[str, float]
    """Figures of the model by name, such as `test/mrr`."""
    baselines: Mapping[str, float]
    """The score of each."""
    scores: Scores
    """Scores by which versions of a model are compared."""


def read_citations(out: Path, report: Path) -> Content:
    """Read what MLflow is told of a run that predicts citations.

    Args:
        out: folder that it was published to.
        report: its EvalReport.
    """
    content = Report.read(out)
    figures = {
        f"{split}/{name}": value
        for split, part in (("test", content.test), ("valid", content.valid))
        for name, value in part.figures().items()
    }
    figures |= {
        f"{protocol}/{name}": value
        for protocol, ranked in content.protocols.items()
        if protocol != "ogb"
        for name, value in ranked.figures().items()
    }
    mrr = {protocol: content.mrr(protocol) for protocol in ("ogb", *content.protocols)}
    return Content(
        report=content,
        headline=formatting.headline(content),
        model_type="link predictor",
        prepared_kind="PreparedGraph",
        facts=content.facts,
        curves=Curves.read(report),
        validations=("valid_mrr", "valid_accuracy", "valid_hard_mrr"),
        figures=figures,
        baselines={name: scores.mrr for name, scores in content.baselines.items()},
        scores=Scores(metric="MRR", by_protocol=mrr, decisive="all"),
    )


def log_run(
    report: Path,
    *,
    model: Path,
    run: RunPaths,
    out: Path,
    read: Callable[[Path, Path], Content] = read_citations,
    is_required: bool = True,
) -> None:
    """Log a published run to MLflow if MLFLOW_TRACKING_URI is set; once logged, it stays as it is.

    Args:
        report: the EvalReport.
        model: the TrainedModel.
        run: the run, by whose name it is logged.
        out: folder that it was published to.
        read: reads what MLflow is told, from `out` and `report`.
        is_required: whether it is an error if MLflow is away. An experiment continues without it.

    Raises:
        MissingPackageError: it is not installed.
        UnavailableError: MLflow does not answer, or refuses the run.
    """
    uri = os.environ.get(mlflow_client.URI_VARIABLE)
    if not uri:
        return
    root = run.data_root
    again = ["citeflow", "publish", report, "--model", model, "--out", out, "--data-root", root]
    hint = f"all results are on disk; to log it to MLflow later: {shlex.join(map(str, again))}"
    try:
        with mlflow_client.connected(
            uri, failed="MLflow did not take the run", hint=hint
        ) as client:
            digests = _digests(report, model, run.data_root)
            run_id = _log(client, read(out, report), digests, report=report, run=run, out=out)
    except UnavailableError as error:
        if is_required:
            raise
        log("publish", "continues without MLflow", why=f"{error.what}: {error.value}")
        log("publish", "can be logged later", hint=error.hint)
    else:
        log("publish", "logged to MLflow", server=mlflow_client.public(uri), run=run_id)


def _log(
    client: "MlflowClient",
    content: Content,
    digests: Mapping[str, str],
    *,
    report: Path,
    run: RunPaths,
    out: Path,
) -> str:
    """Log what MLflow lacks of a run; return the id that it has there."""
    from mlflow.entities import Param, RunTag

    curves = content.curves
    tags = _tags(run.name, content, digests)
    params = _params(content.report)
    datasets = _datasets(content, digests)

    entry = _find_or_create(client, run.name, digests["TrainedModel"], start=_start(curves))
    run_id = str(entry.info.run_id)
    is_same = entry.data.tags.get("EvalReport") == digests["EvalReport"]
    if entry.info.status == FINISHED and is_same:
        return run_id
    client.log_batch(run_id, params=[Param(name, value) for name, value in params.items()])
    client.log_inputs(run_id, datasets)
    model_id = _log_model(client, entry, run.name, out / "model", content, tags, params)
    evaluated = (report / "report.json").stat().st_mtime
    metrics = [
        *_curve_metrics(content),
        *_result_metrics(content, evaluated, run_id, model_id, datasets[0]),
    ]
    for first in range(0, len(metrics), METRICS_PER_REQUEST):
        client.log_batch(run_id, metrics=metrics[first : first + METRICS_PER_REQUEST])
    if not run.is_trial:
        registered_models.register(
            client,
            content.scores,
            model_id=model_id,
            tags={
                **digests,
                "citeflow.run": run.name,
                "dataset": content.report.dataset,
                registered_models.DATA: digests[content.prepared_kind],
            },
        )
    for name in ("report.json", "report.html"):
        client.log_artifact(run_id, str(out / name))
    # The tags last: that of the EvalReport marks the run as complete.
    client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])
    client.set_terminated(run_id, FINISHED, end_time=_ms(_end(curves)))
    return run_id


def _find_or_create(client: "MlflowClient", name: str, model: str, *, start: float) -> "Run":
    """Return the run of this name and model, below the run MLFLOW_RUN_ID where that is set."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    parent = os.environ.get("MLFLOW_RUN_ID", "")
    experiment_id = (
        client.get_run(parent).info.experiment_id if parent else _experiment(client).experiment_id
    )
    key = files.sha256_of_json({"run": name, "model": model, "parent": parent})
    tags = {KEY: key, **({MLFLOW_PARENT_RUN_ID: parent} if parent else {})}

    def find() -> "list[Run]":
        runs = client.search_runs([experiment_id], f"tags.`{KEY}` = '{key}'")
        return sorted(runs, key=lambda run: (run.info.status != FINISHED, run.info.run_id))

    if found := find():
        return found[0]
    created = client.create_run(experiment_id, start_time=_ms(start), tags=tags, run_name=name)
    # The client repeats a request whose answer was lost, so that there may be two runs now.
    first, *twins = find() or [created]
    for twin in twins:
        client.delete_run(twin.info.run_id)
    return first


def _experiment(client: "MlflowClient") -> "Experiment":
    """Return the experiment that the environment names, created unless it is there."""
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return client.get_experiment(experiment_id)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return found or client.get_experiment(client.create_experiment(name))


def _log_model(
    client: "MlflowClient",
    entry: "Run",
    name: str,
    folder: Path,
    content: Content,
    tags: Mapping[str, str],
    params: Mapping[str, str],
) -> str:
    """Upload the model's files unless they are there; return its id."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run_id = entry.info.run_id
    experiment_id = entry.info.experiment_id
    found = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'")
    model = (
        found[0]
        if found
        else client.create_logged_model(
            experiment_id,
            name=re.sub(r"[^\w-]+", "-", name),
            source_run_id=run_id,
            tags=dict(tags),
            params=dict(params),
            model_type=content.model_type,
        )
    )
    if model.status != LoggedModelStatus.READY:
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    outputs = client.get_run(run_id).outputs
    if not outputs or not outputs.model_outputs:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, content.report.train.steps)])
    return str(model.model_id)


def _digests(report: Path, model: Path, data_root: Path) -> dict[str, str]:
    """Return the sha256 of each artifact of the lineage; RawDataset only if the data are there."""
    trained = files.read_manifest(model, "TrainedModel")
    kind = next(name for name in trained.inputs if name.startswith("Prepared"))
    prepared = str(trained.inputs[kind])
    digests = {
        kind: prepared,
        "TrainedModel": trained.sha256,
        "EvalReport": files.read_manifest(report, "EvalReport").sha256,
    }
    for folder in sorted((data_root / "prepared").glob("*")):
        with contextlib.suppress(CorruptError, NotFoundError):
            manifest = files.read_manifest(folder, kind)
            if manifest.sha256 == prepared:
                return {"RawDataset": str(manifest.inputs["RawDataset"]), **digests}
    return digests


def _tags(name: str, content: Content, digests: Mapping[str, str]) -> dict[str, str]:
    version = content.report.versions["citeflow"]
    kfp_run_id = os.environ.get(KFP_RUN_ID)
    tags = {
        "mlflow.note.content": content.headline,
        "mlflow.source.name": f"citeflow {version}",
        "mlflow.source.type": "LOCAL",
        "citeflow.run": name,
        "citeflow.version": version,
        **({"kfp_run_id": kfp_run_id} if kfp_run_id else {}),
        **digests,
    }
    return {name: value[:MAX_TAG_LENGTH] for name, value in tags.items()}


def _params(content: RunReport) -> dict[str, str]:
    values = {"dataset": content.dataset, "workers": content.train.workers}
    for section, settings in content.config.to_dict().items():
        values |= {f"{section}.{key}": value for key, value in settings.items()}
    return {name: redact_url(str(value))[:MAX_PARAM_LENGTH] for name, value in values.items()}


def _datasets(content: Content, digests: Mapping[str, str]) -> "list[DatasetInput]":
    """Describe the artifacts that the run read; the first one is what the model was measured on."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    facts = {name: value for name, value in content.facts.items() if not isinstance(value, dict)}
    inputs = {content.prepared_kind: ("training, test", facts), "RawDataset": ("raw", {})}
    datasets = []
    for kind, (context, profile) in inputs.items():
        if kind not in digests:
            continue
        # The field for the digest holds a part of it only.
        text = json.dumps({"sha256": digests[kind], **profile})
        dataset = Dataset(
            name=f"{redact_url(content.report.dataset)} ({kind})",
            digest=digests[kind][:DIGEST_LENGTH],
            source_type="citeflow",
            source=text,
            profile=text,
        )
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    return datasets


def _curve_metrics(content: Content) -> "list[Metric]":
    """Return the points of all curves, at the steps and times of the training."""
    from mlflow.entities import Metric

    sources: list[tuple[str, Sequence[Mapping[str, float]]]] = [
        *((name, content.curves.history) for name in ("loss", "lr", "positives_per_s")),
        *((name, content.curves.evaluations) for name in content.validations),
    ]
    return [
        Metric(f"train/{key}", entry[key], _ms(entry["wall_time"]), int(entry["step"]))
        for key, entries in sources
        for entry in thin(entries)
        if math.isfinite(entry.get(key, math.nan))
    ]


def thin(entries: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    """Pick at most MAX_POINTS entries at even distances, the first and the last among them."""
    last = len(entries) - 1
    if last < MAX_POINTS:
        return list(entries)
    return [entries[round(last * i / (MAX_POINTS - 1))] for i in range(MAX_POINTS)]


def _result_metrics(
    content: Content, wall_time: float, run_id: str, model_id: str, dataset: "DatasetInput"
) -> "list[Metric]":
    """Return the figures of the finished model, all at step 0, of which MLflow draws bars.

    Scores belong to the model and the dataset too, costs and baselines to the run alone.
    """
    from mlflow.entities import Metric

    others = {f"baseline/{name}": score for name, score in content.baselines.items()}
    train = content.report.train
    totals = train.model_dump(exclude={"workers", "losses"}, exclude_none=True)
    others |= {f"total/{name}": value for name, value in totals.items()}
    others |= {f"lost/{cause}_seconds": value for cause, value in train.losses.items()}
    for stage, cost in content.report.stages.items():
        costs = cost.model_dump(exclude_none=True)
        others |= {f"stage/{stage}_{name}": value for name, value in costs.items()}

    time_ms = _ms(wall_time)
    owner = {
        "run_id": run_id,
        "model_id": model_id,
        "dataset_name": dataset.dataset.name,
        "dataset_digest": dataset.dataset.digest,
    }
    metrics = []
    for values, of_model in ((content.figures, owner), (others, {})):
        for name, value in values.items():
            if math.isfinite(value):
                # MLflow allows no @ in a name.
                key = name.replace("@", "_at_")
                metrics.append(Metric(key, float(value), time_ms, 0, **of_model))
    return metrics


def _start(curves: Curves) -> float:
    """Return when the training began, in seconds since 1970."""
    entries = [*curves.history, *curves.evaluations]
    begins = [entry["wall_time"] - entry["seconds"] for entry in entries[:1]]
    return min([*begins, *(entry["wall_time"] for entry in entries)], default=0.0)


def _end(curves: Curves) -> float:
    entries = [*curves.history, *curves.evaluations]
    return max((entry["wall_time"] for entry in entries), default=0.0)


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
