"""The registry of launchers, by the names that the pipeline and the command line know."""

from citeflow.kubernetes.launchers.base import Launcher, Prerequisite
from citeflow.kubernetes.launchers.pytorchjob import PyTorchJob
from citeflow.kubernetes.launchers.trainjob import TrainJob

__all__ = ["LAUNCHERS", "LAUNCHER_NAMES", "Launcher", "Prerequisite"]

LAUNCHERS: dict[str, Launcher] = {
    launcher.name: launcher
    for launcher in (
        PyTorchJob(),
        TrainJob(),
    )
}
"""Jobs that train on a cluster."""

LAUNCHER_NAMES = ("local", *LAUNCHERS)
"""All values of the parameter `launcher`; `local` trains in the step itself."""
