"""A published run in the terms of an experiment tracker: parameters, metrics over steps, datasets, tags, files."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from citeflow import files
from citeflow.errors import CorruptError, NotFoundError
from citeflow.reporting import formatting
from citeflow.utils.logging import redact_url

Json = dict[str, Any]

POINTS = 300
"""At most as many points of a curve are told; a server keeps each in a row of its database."""

KFP_RUN_ID = "CITEFLOW_KFP_RUN_ID"
"""Variable with the id of the run of Kubeflow Pipelines, if there is one."""


class Point(NamedTuple):
    """A value of a metric."""

    name: str
    value: float
    step: int
    wall_time: float
    """Seconds since 1970."""
    of_model: bool
    """Whether it was measured on the finished model."""


class Dataset(NamedTuple):
    """A noun that the run read."""

    name: str
    sha256: str
    context: str
    profile: Json


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """All that is told of a run."""

    name: str
    digests: dict[str, str]
    """sha256 of the nouns, the first to the last."""
    tags: dict[str, str]
    params: dict[str, str]
    points: list[Point]
    datasets: list[Dataset]
    """The first one is what the model was measured on."""
    start: float
    """Seconds since 1970, as `end`."""
    end: float
    model: Path
    artifacts: list[Path]


def make_account(name: str, report: Path, *, model: Path, root: Path, out_dir: Path) -> Account:
    """Gather it from what was published.

    Args:
        name: of the run.
        report: the EvalReport.
        model: the TrainedModel.
        root: the data root, where the PreparedGraph may still lie.
        out_dir: what was published.
    """
    content, curves = (
        files.read_json(out_dir / "report.json"),
        files.read_json(report / "curves.json"),
    )
    digests = _digests(report, model, root)
    start, end = _span(curves)
    evaluated = (report / "report.json").stat().st_mtime
    return Account(
        name=name,
        digests=digests,
        tags=_tags(name, content, digests),
        params=_params(content),
        points=[*_curves(curves), *_results(content, evaluated)],
        datasets=_datasets(content, digests),
        start=start,
        end=end,
        model=out_dir / "model",
        artifacts=[out_dir / "report.json", out_dir / "report.html"],
    )


def _digests(report: Path, model: Path, root: Path) -> dict[str, str]:
    """The lineage, each noun naming those that it was made from."""
    evaluated, trained = (files.read_json(folder / files.MANIFEST) for folder in (report, model))
    graph = trained["inputs"]["PreparedGraph"]
    found = {
        "PreparedGraph": graph,
        "TrainedModel": trained["sha256"],
        "EvalReport": evaluated["sha256"],
    }
    return {**_inputs_of_graph(root, graph), **found}


def _inputs_of_graph(root: Path, sha256: str) -> dict[str, str]:
    """The RawDataset's digest, unless the graph is no longer there."""
    for path in sorted((root / "prepared").glob(f"*/{files.MANIFEST}")):
        try:
            manifest = files.read_json(path)
            if manifest["sha256"] == sha256:
                return {"RawDataset": manifest["inputs"]["RawDataset"]}
        except (CorruptError, NotFoundError, KeyError, TypeError):
            continue
    return {}


def _span(curves: Json) -> tuple[float, float]:
    """Begin and end of the training, as its records tell them."""
    records = [*curves["history"], *curves["evaluations"]]
    times = [float(record["wall_time"]) for record in records]
    begins = (record["wall_time"] - record["seconds"] for record in records[:1])
    return min([*begins, *times], default=0.0), max(times, default=0.0)


def _tags(name: str, content: Json, digests: dict[str, str]) -> dict[str, str]:
    version = content["versions"]["citeflow"]
    run_id = os.environ.get(KFP_RUN_ID)
    return {
        "mlflow.note.content": formatting.headline(content),
        "mlflow.source.name": f"citeflow {version}",
        "mlflow.source.type": "LOCAL",
        "citeflow.run": name,
        "citeflow.version": version,
        **({"kfp_run_id": run_id} if run_id else {}),
        **digests,
    }


def _params(content: Json) -> dict[str, str]:
    settings = {
        f"{section}.{key}": value
        for section, entries in content["config"].items()
        for key, value in entries.items()
    }
    given = {"dataset": content["dataset"], "workers": content["train"]["workers"], **settings}
    return {name: redact_url(str(value)) for name, value in given.items()}


def _curves(curves: Json) -> Iterator[Point]:
    for key in ("loss", "lr", "positives_per_s"):
        yield from _curve(curves["history"], key, f"train/{key}")
    yield from _curve(curves["evaluations"], "valid_mrr", "train/valid_mrr")


def _curve(records: list[Json], key: str, name: str) -> Iterator[Point]:
    last = len(records) - 1
    shown = (
        range(len(records))
        if last < POINTS
        else sorted({round(last * i / (POINTS - 1)) for i in range(POINTS)})
    )
    for record in (records[index] for index in shown):
        if math.isfinite(record[key]):
            yield Point(
                name, float(record[key]), int(record["step"]), float(record["wall_time"]), False
            )


def _results(content: Json, wall_time: float) -> Iterator[Point]:
    """Figures of the finished model and what it took, all at step 0, of which MLflow draws bars."""
    measured = {
        f"{part}/{key}": value for part in ("test", "valid") for key, value in content[part].items()
    }
    named = {f"baseline/{name}": mrr for name, mrr in formatting.baseline_scores(content).items()}
    named |= {f"total/{key}": value for key, value in content["train"].items() if key != "workers"}
    for stage, cost in content["stages"].items():
        named |= {f"stage/{stage}_{key}": value for key, value in cost.items()}
    for name, value in {**measured, **named}.items():
        if isinstance(value, (int, float)) and math.isfinite(value):
            yield Point(metric_name(name), float(value), 0, wall_time, name in measured)


def metric_name(name: str) -> str:
    """A name that MLflow takes, which has no `@`: hits@10 is hits_at_10."""
    return name.replace("@", "_at_")


def _datasets(content: Json, digests: dict[str, str]) -> list[Dataset]:
    facts = {name: value for name, value in content["facts"].items() if not isinstance(value, dict)}
    told: dict[str, tuple[str, Json]] = {
        "PreparedGraph": ("training, test", facts),
        "RawDataset": ("raw", {}),
    }
    name = redact_url(str(content["dataset"]))
    return [
        Dataset(f"{name} ({kind})", digests[kind], context, profile)
        for kind, (context, profile) in told.items()
        if kind in digests
    ]


def profile_text(dataset: Dataset) -> str:
    """What MLflow shows of a dataset: its facts, and the whole digest, of which its own field holds a part."""
    return json.dumps({"sha256": dataset.sha256, **dataset.profile})
