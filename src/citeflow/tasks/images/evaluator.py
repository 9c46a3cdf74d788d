"""The stage evaluate: figures of a classifier on validation and test, and its errors.

Legend: N images, K classes.
"""

import math
from pathlib import Path

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor
from torch.nn import functional

from citeflow import files
from citeflow.errors import ConfigError
from citeflow.paths import RunPaths
from citeflow.report import CURVES, REPORT, Curves, StageCost, stage_costs
from citeflow.tasks.images import trained_model
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.prepared import PreparedImages
from citeflow.tasks.images.report import (
    ERROR_IMAGES,
    ERRORS,
    KIND,
    SAMPLES,
    ClassScores,
    Errors,
    ImageReport,
    ImageScores,
    Misclassified,
)
from citeflow.tasks.images.training import predict
from citeflow.utils.logging import log
from citeflow.utils.usage import StageMeter

SAMPLES_PER_CLASS = 12
MAX_ERRORS = 24
"""Errors that the report shows."""
Z_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""

BASELINE_ROWS = 4096
"""Images that the nearest mean is computed of at a time."""


def evaluate(model: Path, *, data: Path, run: RunPaths, runs_code: bool = False) -> Path:
    """Classify the held-out images, and write the EvalReport of a run.

    Args:
        model: a TrainedModel.
        data: the PreparedImages that it was trained on.
        run: the run that the report belongs to.
        runs_code: as `trained_model.load`.

    Returns:
        `run.report`.

    Raises:
        ConfigError: the model was trained on other images.
    """
    meter = StageMeter()
    trained = trained_model.load(model, runs_code=runs_code)
    images = PreparedImages.open(data)
    if trained.manifest.inputs["PreparedImages"] != images.manifest.sha256:
        hint = "give the images of its run"
        raise ConfigError("the model was trained on other images", data, hint=hint)
    logits = {name: predict(trained.model, images, images.rows[name]) for name in ("valid", "test")}
    labels = {name: torch.from_numpy(images.label_N[images.rows[name]]) for name in logits}
    num_classes = len(images.facts.classes)
    confusion_KK = confusion(logits["test"], labels["test"], num_classes)
    report = ImageReport(
        dataset=images.facts.dataset,
        facts=images.facts,
        config=trained.details.config,
        versions=trained.details.versions,
        valid=scores(logits["valid"], labels["valid"]),
        test=scores(logits["test"], labels["test"]),
        classes=tuple(class_scores(confusion_KK, images.facts.classes)),
        baselines=baselines(images),
        num_errors=int(confusion_KK.sum() - np.trace(confusion_KK)),
        train=trained.details.train,
        stages={**stage_costs(trained.manifest), "evaluate": StageCost(**meter.cost())},
    )
    curves = Curves(
        history=trained.history,
        evaluations=trained.evaluations,
        resources=trained.resources,
        confusion=confusion_KK.tolist(),
    )
    errors = _errors(logits["test"], labels["test"], images)
    costs: JsonValue = {
        name: cost.model_dump(exclude_none=True) for name, cost in report.stages.items()
    }
    with files.new_directory(run.report) as work:
        files.write_json(work / REPORT, report.to_json())
        files.write_json(work / CURVES, curves.model_dump())
        files.write_json(work / ERRORS, errors.model_dump(mode="json"))
        files.save_array(work / SAMPLES, _samples(images))
        rows = [each.row for each in errors.shown]
        files.save_array(work / ERROR_IMAGES, images.image_NHWC[np.array(rows, np.int64)])
        files.write_manifest(
            work,
            KIND,
            inputs={
                "TrainedModel": trained.manifest.sha256,
                "PreparedImages": images.manifest.sha256,
            },
            facts={
                "task": ImagesConfig.task,
                "test_accuracy": report.test.accuracy,
                "stages": costs,
            },
        )
    log("evaluate", "done", test_accuracy=f"{report.test.accuracy:.4f}", path=run.report)
    return run.report


def scores(logit_NK: Tensor, label_N: Tensor) -> ImageScores:
    """Compute the figures of a split."""
    num_classes = logit_NK.shape[1]
    confusion_KK = confusion(logit_NK, label_N, num_classes)
    right, num = int(np.trace(confusion_KK)), len(label_N)
    f1_K = [each.f1 for each in class_scores(confusion_KK, ("",) * num_classes)]
    return ImageScores(
        accuracy=right / num,
        accuracy_ci=wilson(right, num),
        loss=float(functional.cross_entropy(logit_NK.double(), label_N)),
        macro_f1=float(np.mean(f1_K)),
        num_images=num,
    )


def confusion(logit_NK: Tensor, label_N: Tensor, num_classes: int) -> np.ndarray:
    """Count images [K, K] by their class (row) and the predicted one (column)."""
    cell_N = label_N * num_classes + logit_NK.argmax(dim=1)
    counts = torch.bincount(cell_N, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).numpy()


def class_scores(confusion_KK: np.ndarray, classes: tuple[str, ...]) -> list[ClassScores]:
    """Compute precision, recall and F1 of each class from the confusion matrix."""
    right_K = np.diag(confusion_KK)
    predicted_K = confusion_KK.sum(axis=0)
    of_class_K = confusion_KK.sum(axis=1)
    return [
        ClassScores(
            name=name,
            precision=right / predicted if predicted else 0.0,
            recall=right / num if num else 0.0,
            f1=2 * right / (predicted + num) if predicted + num else 0.0,
            num_images=num,
        )
        for name, right, predicted, num in zip(
            classes, right_K.tolist(), predicted_K.tolist(), of_class_K.tolist(), strict=True
        )
    ]


def wilson(right: int, num: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share.

    Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    share, square = right / num, Z_95**2 / num
    middle = (share + square / 2) / (1 + square)
    half = math.sqrt(square * share * (1 - share) + square**2 / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def baselines(images: PreparedImages) -> dict[str, float]:
    """Return the test accuracy of the most frequent class, and of the class with nearest mean."""
    train, test = images.rows["train"], images.rows["test"]
    num_K = np.bincount(images.label_N[train], minlength=len(images.facts.classes))
    width = int(np.prod(images.image_NHWC.shape[1:]))
    mean_KD = np.zeros((len(num_K), width))
    for first in range(0, len(train), BASELINE_ROWS):
        row_n = train[first : first + BASELINE_ROWS]
        np.add.at(mean_KD, images.label_N[row_n], _flat(images, row_n))
    mean_KD /= num_K[:, None]
    right = 0
    for first in range(0, len(test), BASELINE_ROWS):
        row_n = test[first : first + BASELINE_ROWS]
        # Squared distances without the square of the image, which all classes share.
        distance_nK = np.square(mean_KD).sum(axis=1) - 2 * _flat(images, row_n) @ mean_KD.T
        right += int((distance_nK.argmin(axis=1) == images.label_N[row_n]).sum())
    label_N = images.label_N[test]
    return {
        "nearest class mean": right / len(test),
        "most frequent class": float((label_N == num_K.argmax()).mean()),
    }


def _flat(images: PreparedImages, row_n: np.ndarray) -> np.ndarray:
    pixel_nD: np.ndarray = images.image_NHWC[row_n].reshape(len(row_n), -1)
    return pixel_nD / 255.0


def _samples(images: PreparedImages) -> np.ndarray:
    """Choose training images of each class at even distances."""
    shape = (len(images.facts.classes), SAMPLES_PER_CLASS, *images.image_NHWC.shape[1:])
    chosen = np.zeros(shape, np.uint8)
    train = images.rows["train"]
    for label in range(len(chosen)):
        row_n = train[images.label_N[train] == label]
        num = min(SAMPLES_PER_CLASS, len(row_n))
        chosen[label, :num] = images.image_NHWC[row_n[np.arange(num) * len(row_n) // num]]
    return chosen


def _errors(logit_NK: Tensor, label_N: Tensor, images: PreparedImages) -> Errors:
    probability_N, predicted_N = logit_NK.softmax(dim=1).max(dim=1)
    wrong = torch.nonzero(predicted_N != label_N).flatten()
    order = wrong[torch.argsort(probability_N[wrong], descending=True, stable=True)][:MAX_ERRORS]
    classes = images.facts.classes
    return Errors(
        shown=tuple(
            Misclassified(
                row=int(images.rows["test"][at]),
                true=classes[int(label_N[at])],
                predicted=classes[int(predicted_N[at])],
                probability=float(probability_N[at]),
            )
            for at in order.tolist()
        )
    )
