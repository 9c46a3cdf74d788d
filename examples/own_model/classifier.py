"""A classifier of images: depthwise separable convolutions (Chollet, arXiv 1610.02357)."""

from torch import nn


def block(before, after):
    depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False)
    pointwise = nn.Conv2d(before, after, 1, bias=False)
    return nn.Sequential(depthwise, pointwise, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))


def build(settings):  # images [B, C, H, W], standardized -> logits [B, K]
    width = settings.width_of_layers
    return nn.Sequential(
        nn.Conv2d(settings.channels, width, 3, padding=1),
        block(width, 2 * width),
        block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, settings.num_classes),
    )
