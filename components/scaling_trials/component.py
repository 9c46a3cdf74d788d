"""Plan the trainings of a scaling experiment."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scaling_trials(
    settings: str,
    share: dict,
    workers: list,
    epochs: list,
    parallel: int,
    data_root: str,
) -> list:
    """Plan the trainings of a scaling experiment: each number of workers with each of epochs.

    Args:
        settings: YAML text with all settings but the epochs.
        share: Name of the experiment, and what else all trainings have in common.
        workers: Numbers of workers.
        epochs: Numbers of passes over the training citations.
        parallel: Number of steps that train at a time.
        data_root: Mount path of the shared volume.

    Returns:
        For each step, the names of its trainings, and the share.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import scaling

    return scaling.scaling_trials(settings, share, workers, epochs, parallel, data_root=data_root)
