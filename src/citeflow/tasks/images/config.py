"""The settings of the image task: its `Config`."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from citeflow.config import Precision, RecoveryConfig, SandboxConfig, TaskConfig
from citeflow.tasks.images.architectures import ARCHITECTURES
from citeflow.utils import records
from citeflow.utils.records import Float, Int, OptionalStr, Record

if TYPE_CHECKING:
    ArchitectureName = str
else:
    # One of the registry's names; a type checker wants them spelled out.
    ArchitectureName = Literal[tuple(ARCHITECTURES)]

MAX_SIDE = 512
"""Pixels of a side that images may have; larger ones have to be made smaller."""


class ImageDataConfig(Record):
    """Settings of the preparation of images."""

    size: Int = Field(0, ge=0, le=MAX_SIDE)
    """Pixels of each side that all images are resized to; 0 keeps their size, which must be one."""

    color: Literal["auto", "gray", "rgb"] = "auto"
    """Channels: as the images are (`rgb` if any has colors), one, or three."""

    holdout: Float = Field(0.1, gt=0, le=0.4)
    """Share of each class that goes to validation, and as much to the test where a dataset has no
    test of its own."""

    seed: Int = Field(0, ge=0)
    """Seed of the split."""


class GeneratedConfig(Record):
    """The size of the dataset named `garments`."""

    num_images: Int = Field(6_000, ge=200)
    """Images to train and validate on; the test has a sixth as many. Fashion-MNIST has 60,000."""

    seed: Int = Field(0, ge=0)
    """Seed of the drawings."""


class ImageModelConfig(Record):
    """A convolutional classifier."""

    architecture: ArchitectureName = "batch_norm"
    """Network: two convolutions and a hidden layer, plain, with dropout or with batch norm, or a
    small residual network."""

    channels: Int = Field(32, ge=1, le=512)
    """Channels of the first convolution; later ones have twice or four times as many."""

    hidden: Int = Field(128, ge=1, le=4096)
    """Width of the hidden layer; `resnet` has none."""

    dropout: Float = Field(0.3, ge=0, lt=1)
    """Dropout probability of `dropout`; the others have none."""

    code: OptionalStr = ""
    """Python file with `build(settings)`, whose module is the network in place of an architecture;
    a run keeps its sha256 in place of the path. See docs/own-model.md."""

    weights: OptionalStr = ""
    """File of safetensors with the weights to start from, such as `model.safetensors` of another
    run; a run keeps its sha256 in place of the path."""


class ImageTrainConfig(Record):
    """Settings of the training."""

    epochs: Float = Field(10.0, gt=0)
    """Passes over the training images; a fraction is allowed. Not used where `minutes` is set."""

    minutes: Float = Field(0.0, ge=0)
    """Time to train in minutes, validation included; 0 trains for `epochs`."""

    batch_size: Int = Field(64, ge=2)
    """Images that a worker takes in a step."""

    lr: Float = Field(0.003, gt=0)
    """Highest learning rate of Adam; it warms up, then falls along a cosine."""

    max_grad_norm: Float = Field(1.0, ge=0)
    """Gradients are clipped to this norm; 0 does not clip."""

    precision: Precision = "float32"
    """Type in which a step multiplies matrices. `bfloat16` takes three quarters of the time on a
    processor that has instructions for it; weights, sums and all figures stay float32."""

    seed: Int = Field(0, ge=0)
    """Seed of weights, batches and dropout."""

    num_validations: Int = Field(10, ge=1)
    """Number of validations during training."""


class ImagesConfig(TaskConfig):
    """All settings of the image task; together with data and workers they decide the model."""

    task = "images"

    data: ImageDataConfig = ImageDataConfig()
    generated: GeneratedConfig = GeneratedConfig()
    model: ImageModelConfig = ImageModelConfig()
    train: ImageTrainConfig = ImageTrainConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    sandbox: SandboxConfig = SandboxConfig()


def from_dict(values: object) -> ImagesConfig:
    """Build settings from plain values by section and key."""
    return records.load(ImagesConfig, values)
