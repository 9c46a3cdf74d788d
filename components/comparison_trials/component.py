"""Settle the runs of a model comparison."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def comparison_trials(
    settings: str, run: str, models: str, seeds: list, workers: int, data_root: str
) -> list:
    """Settle the runs of a model comparison: every model with every seed.

    Args:
        settings: YAML text with the settings that all models have in common.
        run: Name of the comparison.
        models: YAML text with the settings of each model, by its name.
        seeds: Seeds of weights and batches.
        workers: Number of training processes.
        data_root: Where the shared volume is mounted.

    Returns:
        Name, workers and settings of each run.
    """
    from citeflow.experiments import steps

    return steps.comparison_trials(settings, run, models, seeds, workers, data_root=data_root)
