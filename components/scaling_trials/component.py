"""Settle the runs of a scaling sweep."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scaling_trials(
    settings: str, run: str, workers: list, epochs: list, launcher: str, data_root: str
) -> list:
    """Settle the runs of a scaling sweep: every number of workers with every number of epochs.

    Args:
        settings: YAML text with all settings but the epochs.
        run: Name of the sweep.
        workers: Numbers of workers.
        epochs: Numbers of passes over the training citations.
        launcher: What trains; "local" shares one machine.
        data_root: Where the shared volume is mounted.

    Returns:
        Name, workers and settings of each run.
    """
    from citeflow.experiments import steps

    return steps.scaling_trials(settings, run, workers, epochs, launcher, data_root=data_root)
