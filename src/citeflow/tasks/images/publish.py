"""The stage publish: the results of an image run where people look for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary

from citeflow import files
from citeflow.paths import RunPaths
from citeflow.report import REPORT, Curves, StageCost
from citeflow.reporting import tensorboard
from citeflow.reporting.mlflow import Content
from citeflow.reporting.publish import MODEL, PAGE, check_output_folders
from citeflow.reporting.registered_models import Scores
from citeflow.tasks.images import page
from citeflow.tasks.images.prepared import KIND as PREPARED
from citeflow.tasks.images.report import ERROR_IMAGES, ERRORS, SAMPLES, Errors, ImageReport
from citeflow.tasks.images.training import NAMES
from citeflow.utils import records
from citeflow.utils.logging import log
from citeflow.utils.usage import StageMeter

LAYOUT = {
    "Accuracy": {
        "validation, test and baselines": [
            "Multiline",
            ["^valid/accuracy$", "^test/accuracy$", "^baseline/.*"],
        ]
    },
    "Loss": {"training and validation": ["Multiline", ["^train/loss$", "^valid/loss$"]]},
    "Throughput": {"images per second": ["Multiline", ["^train/positives_per_s$"]]},
}
"""Charts of TensorBoard, as torch.utils.tensorboard wants them."""


def publish(report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
    """Publish a run: page, report and model in a folder, the result in TensorBoard.

    The arguments are those of `reporting.publish.publish`.
    """
    meter = StageMeter()
    check_output_folders(run.data_root, out)
    files.verify(report, "EvalReport")
    files.verify(model, "TrainedModel")
    content = ImageReport.read(report)
    curves = Curves.read(report)
    errors = records.load(Errors, files.read_json(report / ERRORS), name=ERRORS)
    samples = np.load(report / SAMPLES, allow_pickle=False)
    tensorboard.write_result(
        run.logs,
        content,
        curves,
        lambda step: _scalars(content, step),
        _summaries(content, samples),
    )
    files.copy_directory(model, out / MODEL)
    stages = {**content.stages, "publish": StageCost(**meter.cost())}
    content = content.model_copy(update={"stages": stages})
    text = page.render(
        content,
        curves,
        errors,
        error_images=np.load(report / ERROR_IMAGES, allow_pickle=False),
        sample_images=samples,
    )
    files.write_text(out / PAGE, text)
    files.write_json(out / REPORT, content.to_json())
    log("publish", "done", report=out / PAGE, logs=run.logs)


def read_for_mlflow(out: Path, report: Path) -> Content:
    """Read what MLflow is told of a run, from its published folder and its EvalReport."""
    content = ImageReport.read(out)
    figures = {
        f"{split}/{name}": float(value)
        for split, part in (("test", content.test), ("valid", content.valid))
        for name, value in part.model_dump(exclude={"accuracy_ci"}).items()
    }
    return Content(
        report=content,
        headline=page.headline(content),
        model_type="image classifier",
        prepared_kind=PREPARED,
        facts={
            name: value
            for name, value in content.facts.model_dump(mode="json").items()
            if not isinstance(value, list)
        },
        curves=Curves.read(report),
        validations=("valid_accuracy", "valid_loss"),
        figures=figures,
        baselines={_tag(name): value for name, value in content.baselines.items()},
        scores=Scores(
            metric=NAMES.metric, by_protocol={"test": content.test.accuracy}, decisive="test"
        ),
    )


def _scalars(report: ImageReport, step: int) -> dict[int, dict[str, float]]:
    """Return values by step; a baseline is at both ends, so that it is drawn as a level line."""
    baselines = {f"baseline/{_tag(name)}": value for name, value in report.baselines.items()}
    test = {
        f"test/{name}": float(getattr(report.test, name))
        for name in ("accuracy", "loss", "macro_f1")
    }
    return {0: baselines, step: {**baselines, **test, **_hparam_metrics(report)}}


def _tag(name: str) -> str:
    return name.replace(" ", "_")


def _hparam_metrics(report: ImageReport) -> dict[str, float]:
    return {
        "hparam/test_accuracy": report.test.accuracy,
        "hparam/valid_accuracy": report.valid.accuracy,
        "hparam/train_seconds": report.train.seconds,
    }


def _summaries(report: ImageReport, sample_KNHWC: np.ndarray) -> Iterator[Summary]:
    """Yield hyperparameters, layout, the sample grid and a text card."""
    from torch.utils.tensorboard import summary

    untyped: Any = summary  # torch leaves its functions without types
    yield from untyped.hparams(tensorboard.hparams(report), _hparam_metrics(report))
    yield untyped.custom_scalars(LAYOUT)
    num_classes, num, height, width, channels = sample_KNHWC.shape
    grid = sample_KNHWC.transpose(0, 2, 1, 3, 4).reshape(
        num_classes * height, num * width, channels
    )
    yield untyped.image("samples", grid, dataformats="HWC")
    card = untyped.text("run", page.summary(report))
    card.value[0].tensor.tensor_shape.ClearField("dim")  # a list would be shown as a table
    yield card
