"""Create the Optuna study of a search."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def create_study(
    graph: dsl.Input[dsl.Dataset],
    settings: str,
    space: str,
    trials: int,
    parallel: int,
    workers: int,
    share: dict,
    data_root: str,
) -> list[dict[str, str]]:
    """Create or resume the Optuna study of a search.

    Args:
        graph: Manifest of a PreparedGraph.
        settings: YAML text with all settings, from which the search starts.
        space: YAML text with the settings to search, each with bounds or a list of values; empty
            takes the default.
        trials: Number of trials, trial 0 with the settings themselves among them.
        parallel: Number of trials that are trained at a time.
        workers: Number of training processes of each trial.
        share: Name of the search, and what else all trials have in common.
        data_root: Mount path of the shared volume.

    Returns:
        For each process, the numbers of its trials, and the share.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import tuning

    return tuning.create_study(
        graph, settings, space, trials, parallel, workers, share, data_root=data_root
    )
