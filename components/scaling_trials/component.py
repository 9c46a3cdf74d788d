"""Plan the trainings of a scaling experiment."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scaling_trials(
    settings: str,
    run: str,
    workers: list,
    epochs: list,
    parallel: int,
    launcher: str,
    data_root: str,
) -> list:
    """Plan the trainings of a scaling experiment: each number of workers with each of epochs.

    Args:
        settings: YAML text with all settings but the epochs.
        run: Name of the experiment.
        workers: Numbers of workers.
        epochs: Numbers of passes over the training citations.
        parallel: Number of steps that train at a time.
        launcher: What trains; the workers of "local" share one machine.
        data_root: Mount path of the shared volume.

    Returns:
        For each step, the names of its trainings.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import scaling

    return scaling.scaling_trials(
        settings, run, workers, epochs, parallel, launcher, data_root=data_root
    )
