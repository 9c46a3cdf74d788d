"""Begin or continue a search for better settings."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tuning_trials(
    graph: dsl.Input[dsl.Dataset],
    settings: str,
    space: str,
    trials: int,
    parallel: int,
    workers: int,
    run_name: str,
    data_root: str,
) -> list[dict[str, str]]:
    """Begin or continue a search for better settings.

    Args:
        graph: Manifest of a PreparedGraph.
        settings: YAML text with all settings, from which the search starts.
        space: YAML text with the settings to search, each with bounds or a list of values; empty searches the usual.
        trials: Number of trials, the settings that it starts from among them.
        parallel: How many trials are trained at a time.
        workers: Number of training processes of each.
        run_name: Name of the search.
        data_root: Where the shared volume is mounted.

    Returns:
        For each of those that train at a time, the numbers of its trials.
    """
    from citeflow.experiments import tuning_steps

    return tuning_steps.tuning_trials(
        graph, settings, space, trials, parallel, workers, run_name, data_root=data_root
    )
