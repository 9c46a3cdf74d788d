"""What the components share."""

from citeflow import __version__
from citeflow.cluster import spec

IMAGE = f"citeflow-step:{__version__}-python3.11"
"""Image of every step; it holds citeflow and kfp, so that a step installs nothing when it starts."""

TRAIN_IMAGE = spec.IMAGE
"""Image of a job's workers."""
