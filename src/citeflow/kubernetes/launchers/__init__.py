"""The registry of launchers, by the names that the pipeline and the command line know."""

from citeflow.kubernetes.launchers.base import Launcher, Prerequisite
from citeflow.kubernetes.launchers.pytorchjob import PyTorchJob
from citeflow.kubernetes.launchers.ray import RayJob
from citeflow.kubernetes.launchers.trainjob import TrainJob

__all__ = [
    "AUTO",
    "LAUNCHERS",
    "LAUNCHERS_HERE",
    "LAUNCHER_NAMES",
    "LOCAL",
    "Launcher",
    "Prerequisite",
]

AUTO = "auto"
"""A kind of LAUNCHERS where the step runs on a cluster that has one, and LOCAL elsewhere."""

LOCAL = "local"
"""Training in the step itself, by torchrun."""

LAUNCHERS: dict[str, Launcher] = {
    launcher.name: launcher
    for launcher in (
        PyTorchJob(),
        TrainJob(),
        RayJob(),
    )
}
"""Jobs that train on a cluster; `auto` takes the first that a cluster has."""

LAUNCHERS_HERE = (LOCAL, *(name for name, each in LAUNCHERS.items() if each.works_here))
"""Names of those that train on a machine without a cluster."""

LAUNCHER_NAMES = (AUTO, LOCAL, *LAUNCHERS)
"""All values of the parameter `launcher`."""
