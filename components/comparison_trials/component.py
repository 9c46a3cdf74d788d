"""Plan the trainings of a model comparison."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def comparison_trials(
    settings: str,
    share: dict,
    models: str,
    seeds: list,
    workers: int,
    parallel: int,
    data_root: str,
) -> list:
    """Plan the trainings of a model comparison: each model with each seed.

    Args:
        settings: YAML text with the settings that all models share.
        share: Name of the comparison, and what else all trainings have in common.
        models: YAML text with the settings of each model, by its name.
        seeds: Seeds of weights and batches.
        workers: Number of training processes.
        parallel: Number of steps that train at a time.
        data_root: Mount path of the shared volume.

    Returns:
        For each step, the names of its trainings, and the share.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import comparison

    return comparison.comparison_trials(
        settings, share, models, seeds, workers, parallel, data_root=data_root
    )
