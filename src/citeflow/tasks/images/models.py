"""Convolutional classifiers of small images.

Legend: B images of a batch, C channels, H height, W width, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from citeflow.models import own
from citeflow.tasks.images.architectures import ARCHITECTURES, Architecture
from citeflow.tasks.images.config import ImageModelConfig
from citeflow.utils.records import Record

POOLED_SIDE = 7
"""Side of the map that the hidden layer sees, at most: Fashion-MNIST's 28 pixels, halved twice."""


class ImageShape(Record):
    """Dimensions that a model is made for."""

    height: int
    width: int
    channels: int
    num_classes: int


class ClassifierSettings(ImageShape):
    """Argument of `build` of one's own code, whose module takes images [B, channels, H, W]."""

    width_of_layers: int
    """`model.channels`."""
    hidden: int
    """`model.hidden`, as the following are settings of their names."""
    dropout: float
    seed: int
    """`train.seed`, which torch is seeded with already."""


class OwnNetwork(nn.Module):
    """A module of one's own as the network of a classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K] of standardized images."""
        with own.reported("forward"):
            logit_BK: Tensor = self.network(image_BCHW)
        return logit_BK


class ImageClassifier(nn.Module):
    """A network behind the standardization of its input."""

    mean_C: Tensor
    deviation_C: Tensor

    def __init__(
        self, shape: ImageShape, config: ImageModelConfig, network: nn.Module | None = None
    ) -> None:
        """Build the network of `config.architecture`, unless one is given."""
        super().__init__()
        architecture = ARCHITECTURES[config.architecture]
        self.register_buffer("mean_C", torch.zeros(shape.channels))
        self.register_buffer("deviation_C", torch.ones(shape.channels))
        if network is None:
            make = _residual_network if architecture.is_residual else _two_convolutions
            # A CPU takes two thirds of the time for convolutions whose channels lie side by side.
            # A module of one's own may count on the usual order.
            network = nn.utils.convert_conv2d_weight_memory_format(
                make(shape, config, architecture), torch.channels_last
            )
        self.network: nn.Module = network

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K] of images, uint8."""
        mean = self.mean_C[:, None, None]
        deviation = self.deviation_C[:, None, None]
        logit_BK: Tensor = self.network((image_BCHW.float() / 255 - mean) / deviation)
        return logit_BK


def _two_convolutions(
    shape: ImageShape, config: ImageModelConfig, architecture: Architecture
) -> nn.Sequential:
    width = config.channels
    side = tuple(max(1, min(POOLED_SIDE, pixels // 4)) for pixels in (shape.height, shape.width))
    dropout = [nn.Dropout(config.dropout)] if architecture.uses_dropout else []
    return nn.Sequential(
        *_convolution(shape.channels, width, architecture),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(width, 2 * width, architecture),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(side),
        nn.Flatten(),
        *dropout,
        nn.Linear(2 * width * side[0] * side[1], config.hidden),
        nn.ReLU(),
        *dropout,
        nn.Linear(config.hidden, shape.num_classes),
    )


def _convolution(
    in_channels: int, out_channels: int, architecture: Architecture
) -> tuple[nn.Module, ...]:
    norm = (nn.BatchNorm2d(out_channels),) if architecture.uses_batch_norm else ()
    bias = not architecture.uses_batch_norm
    return (
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
        *norm,
        nn.ReLU(),
    )


def _residual_network(
    shape: ImageShape, config: ImageModelConfig, architecture: Architecture
) -> nn.Sequential:
    width = config.channels
    return nn.Sequential(
        *_convolution(shape.channels, width, architecture),
        ResidualBlock(width, width, stride=2),
        ResidualBlock(width, 2 * width, stride=2),
        ResidualBlock(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, shape.num_classes),
    )


class ResidualBlock(nn.Module):
    """Two convolutions whose output is added to their input.

    He et al., "Deep residual learning for image recognition", 2016.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return [B, C, H, W] of the output's size."""
        y_BCHW = functional.relu(self.first_norm(self.first(x_BCHW)))
        y_BCHW = self.second_norm(self.second(y_BCHW))
        return functional.relu(y_BCHW + self.shortcut(x_BCHW))


def activation_floats(shape: ImageShape, config: ImageModelConfig) -> int:
    """Count the numbers that the layers put out for one image, without computing any."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        total += output.numel()

    with torch.device("meta"):
        model = ImageClassifier(shape, config).eval()
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        model(torch.empty(1, shape.channels, shape.height, shape.width))
    return total
