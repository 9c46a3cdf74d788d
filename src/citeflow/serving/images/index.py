"""The ServingIndex of a classifier: its weights and its details.

Legend: B images of a request, C channels, H height, W width, K classes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor

from citeflow import __version__, files
from citeflow.artifacts import SERVING_INDEX
from citeflow.files import Manifest
from citeflow.serving.served import Tensors, is_made_of
from citeflow.tasks.images import trained_model
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.trained_model import DETAILS, WEIGHTS, Classifier, ImageModelDetails
from citeflow.utils.logging import log

LAYOUT = 1
"""Number of the layout: an index of another one is made anew."""

INPUT = "image"
"""Name of the tensor that it takes."""

OUTPUTS = {"label": "BYTES", "probability": "FP32", "logit": "FP32"}
"""Names and types of the tensors that it answers with, [B, k]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageIndex:
    """An index that was opened, ready to answer."""

    path: Path
    manifest: Manifest
    classifier: Classifier

    @classmethod
    def open(cls, path: Path) -> "ImageIndex":
        """Verify an index and read its weights.

        Raises:
            NotFoundError: there is none.
            CorruptError: a file does not match its digest, or is not what a training writes.
        """
        manifest = files.verify(path, SERVING_INDEX)
        return cls(path=path, manifest=manifest, classifier=trained_model.load_classifier(path))

    @property
    def details(self) -> ImageModelDetails:
        """Classes, shape and settings of the model."""
        return self.classifier.details

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the images that the model takes."""
        shape = self.details.shape
        return shape.height, shape.width, shape.channels

    @property
    def inputs(self) -> Tensors:
        """Images; `FP32` is taken too, and one channel may be left out of the shape."""
        return {INPUT: ("UINT8", [-1, *self.shape])}

    @property
    def outputs(self) -> Tensors:
        """The most probable classes of each image."""
        return {name: (datatype, [-1, -1]) for name, datatype in OUTPUTS.items()}

    @property
    def size(self) -> dict[str, int]:
        """The number of classes."""
        return {"classes": len(self.details.classes)}

    @torch.inference_mode()
    def logits(self, image_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K] of images with pixels from 0 to 255."""
        logit_BK: Tensor = self.classifier.model(image_BCHW)
        return logit_BK

    def warm_up(self) -> None:
        """Classify a black image."""
        height, width, channels = self.shape
        self.logits(torch.zeros(1, channels, height, width))


def write_index(model: Path, folder: Path) -> Path:
    """Make the ServingIndex of a model, unless it is there already in one piece.

    Args:
        model: a TrainedModel.
        folder: path of the index.

    Returns:
        `folder`.

    Raises:
        NotFoundError: there is no such model.
        CorruptError: a file does not match its digest.
    """
    trained = trained_model.load(model)
    details = trained.details
    inputs: dict[str, JsonValue] = {"TrainedModel": trained.manifest.sha256, "layout": LAYOUT}
    if is_made_of(folder, inputs):
        log("index", "is there already", path=folder)
        return folder
    log("index", "writing", path=folder)
    with files.new_directory(folder) as work:
        for name in (WEIGHTS, DETAILS):
            files.copy_file(model / name, work / name)
        facts: dict[str, JsonValue] = {
            "task": ImagesConfig.task,
            "dataset": details.dataset,
            "num_classes": len(details.classes),
            "valid_accuracy": details.valid_accuracy,
            "citeflow": __version__,
        }
        files.write_manifest(work, SERVING_INDEX, inputs=inputs, facts=facts)
    return folder
