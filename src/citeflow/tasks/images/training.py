"""The image task on one rank: model, batches, validation.

Legend: N images, B images of a batch, C channels, H height, W width, K classes.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn import functional

from citeflow import own_model
from citeflow.errors import DataError
from citeflow.models.own import warm_start
from citeflow.own_model import OwnFiles
from citeflow.tasks.base import TrainResult
from citeflow.tasks.images import trained_model
from citeflow.tasks.images.config import ImagesConfig, ImageTrainConfig
from citeflow.tasks.images.models import ImageClassifier, ImageShape
from citeflow.tasks.images.prepared import ImageFacts, PreparedImages
from citeflow.tasks.names import Names
from citeflow.training.distributed import Group

NAMES = Names(score="valid_accuracy", metric="accuracy", samples="images")
LOSS = "valid_loss"

ROWS_AT_A_TIME = 512
"""Images of a forward pass that learns nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBatch:
    """Images with their classes."""

    image_BCHW: Tensor
    """uint8."""
    label_B: Tensor

    @property
    def num_samples(self) -> int:
        """Images in it."""
        return len(self.label_B)

    def to(self, device: torch.device) -> "ImageBatch":
        """Return the same batch on a device."""
        return dataclasses.replace(
            self, image_BCHW=self.image_BCHW.to(device), label_B=self.label_B.to(device)
        )


class OpenImagesTask:
    """PreparedImages, and the settings to train on them."""

    names = NAMES

    def __init__(
        self, images: PreparedImages, config: ImagesConfig, data_root: Path | None = None
    ) -> None:
        self.images = images
        self.config = config
        self.data_root = data_root

    @property
    def train(self) -> ImageTrainConfig:
        """Settings of the trainer."""
        return self.config.train

    def inputs(self, world_size: int) -> dict[str, JsonValue]:
        """Return digests of images and settings, and the number of workers."""
        return {
            "PreparedImages": self.images.manifest.sha256,
            "config": own_model.decisive(self.config),
            "workers": world_size,
            **own_model.names(self.config),
        }

    def begin(self, group: Group) -> "ImageClassification":
        """Build the untrained model, by code of one's own if the settings name some.

        Raises:
            DataError: there are too few images for so many workers.
            ConfigError: a file of one's own does not fit.
        """
        own_files = own_model.open_files(self.config, self.data_root)
        return ImageClassification(self.images, self.config, group, own_files)


class ImageObjective(nn.Module):
    """The cross entropy of a classifier."""

    def __init__(self, model: ImageClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: ImageBatch) -> Tensor:
        """Compute the loss of a batch."""
        return functional.cross_entropy(self.model(batch.image_BCHW), batch.label_B)


class ImageSampler:
    """Deals the training images into batches.

    All ranks read one endless stream, in which each pass over the images is a permutation of its
    own; a step takes as many for each rank, so that each counts the same in the mean gradient.
    """

    def __init__(self, num_images: int, *, batch_size: int, world_size: int, seed: int) -> None:
        """Raise DataError if a rank has not two images: batch norm needs as many."""
        self.batch_size = min(batch_size, num_images // world_size)
        if self.batch_size < 2:
            hint = "two for each worker"
            raise DataError("too few training images", num_images, hint=hint)
        self.num_images = num_images
        self.world_size = world_size
        self.seed = seed
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_images)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of all ranks that come nearest to one pass."""
        return max(1, round(self.num_images / (self.batch_size * self.world_size)))

    def positions(self, step: int, rank: int) -> np.ndarray:
        """Return the batch of a rank, as positions [B] among the training images."""
        first = (step * self.world_size + rank) * self.batch_size
        at_B = np.arange(first, first + self.batch_size)
        epoch_B, row_B = np.divmod(at_B, self.num_images)
        parts = [
            self._order(epoch)[row_B[epoch_B == epoch]] for epoch in np.unique(epoch_B).tolist()
        ]
        return np.concatenate(parts)


class ImageClassification:
    """A classifier in training."""

    def __init__(
        self,
        images: PreparedImages,
        config: ImagesConfig,
        group: Group,
        own_files: OwnFiles = own_model.NO_FILES,
    ) -> None:
        self.images = images
        self.config = config
        self.group = group
        self.own_files = own_files
        self.model = build_model(images.facts, config, own_files).to(group.device)
        self.objective = ImageObjective(self.model)
        self._sampler = ImageSampler(
            len(images.rows["train"]),
            batch_size=config.train.batch_size,
            world_size=group.world_size,
            seed=config.train.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the ranks see every training image."""
        return self._sampler.steps_per_epoch

    @property
    def samples_per_epoch(self) -> int:
        """Training images."""
        return len(self.images.rows["train"])

    def make_batch(self, step: int) -> ImageBatch:
        """Gather the images of a step."""
        at_B = self._sampler.positions(step, self.group.rank)
        return read_batch(self.images, self.images.rows["train"][at_B])

    def validate(self) -> tuple[dict[str, float], int]:
        """Count right answers and sum the losses over this rank's share of the validation images.

        All ranks measure with the running statistics of batch norm that a checkpoint holds.
        """
        self.group.broadcast_buffers(self.model)
        own = self.images.rows["valid"][self.group.rank :: self.group.world_size]
        logit_NK = predict(self.model, self.images, own, device=self.group.device)
        label_N = torch.from_numpy(self.images.label_N[own])
        right = float((logit_NK.argmax(dim=1) == label_N).sum())
        loss = float(functional.cross_entropy(logit_NK, label_N, reduction="sum"))
        if not logit_NK.isfinite().all():
            right = math.nan
        return {NAMES.score: right, LOSS: loss}, len(own)

    def finish(self) -> None:
        """Do nothing: a classifier's probabilities are those of its loss."""

    def save(self, folder: Path, result: TrainResult) -> None:
        """Write the TrainedModel."""
        trained_model.save(
            folder,
            self.model,
            self.images,
            config=self.config,
            result=result,
            own_files=self.own_files,
        )


def build_model(
    facts: ImageFacts, config: ImagesConfig, own_files: OwnFiles = own_model.NO_FILES
) -> ImageClassifier:
    """Build an untrained model for images, the same on every rank.

    With `model.weights` it is not untrained; with `model.code` this runs the code.

    Raises:
        ConfigError: one of these files does not fit.
    """
    torch.manual_seed(config.train.seed)
    shape = shape_of(facts)
    source = own_files.read_code()
    network = trained_model.build_network(source, shape, config) if source else None
    model = ImageClassifier(shape, config.model, network)
    model.mean_C = torch.tensor(facts.mean, dtype=torch.float32)
    model.deviation_C = torch.tensor(facts.deviation, dtype=torch.float32)
    if own_files.weights:
        warm_start(model, safetensors.torch.load_file(own_files.weights))
    return model


def shape_of(facts: ImageFacts) -> ImageShape:
    """Return the dimensions that a model of some images has."""
    return ImageShape(
        height=facts.height,
        width=facts.width,
        channels=facts.channels,
        num_classes=len(facts.classes),
    )


def read_batch(images: PreparedImages, row_B: np.ndarray) -> ImageBatch:
    """Read images and labels from the disk."""
    image_BHWC = torch.from_numpy(images.image_NHWC[row_B])
    # Not `contiguous`: with one channel that keeps strides which DDP's buckets do not have.
    image_BCHW = torch.empty(image_BHWC.permute(0, 3, 1, 2).shape, dtype=torch.uint8)
    image_BCHW.copy_(image_BHWC.permute(0, 3, 1, 2))
    return ImageBatch(
        image_BCHW=image_BCHW,
        label_B=torch.from_numpy(images.label_N[row_B]),
    )


@torch.no_grad()
def predict(
    model: ImageClassifier,
    images: PreparedImages,
    row_N: np.ndarray,
    *,
    device: torch.device | None = None,
) -> Tensor:
    """Return the logits [N, K] of some rows in main memory; the model stays in its mode."""
    was_training = model.training
    model.eval()
    chunks = [torch.empty(0, len(images.facts.classes))]
    for first in range(0, len(row_N), ROWS_AT_A_TIME):
        batch = read_batch(images, row_N[first : first + ROWS_AT_A_TIME])
        chunks.append(model(batch.image_BCHW.to(device or "cpu")).cpu())
    model.train(was_training)
    return torch.cat(chunks)
