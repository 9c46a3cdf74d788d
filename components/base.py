"""What the components share."""

from citeflow import __version__

IMAGE = f"citeflow-step:{__version__}-python3.11"
"""Image of every step; it holds citeflow and kfp, so that a step installs nothing when it starts."""
