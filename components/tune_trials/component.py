"""Train some of the trials of a search, one after the other."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tune_trials(
    graph: dsl.Input[dsl.Dataset],
    trials: str,
    run_name: str,
    workers: int,
    run_id: str,
    launcher: str,
    job: str,
    data_root: str,
) -> str:
    """Train some of the trials of a search, one after the other.

    Args:
        graph: Manifest of the PreparedGraph.
        trials: Their numbers.
        run_name: Name of the search.
        workers: Number of training processes.
        run_id: Id of the pipeline run, which each job gets as a label.
        launcher: "local" trains in this step; "pytorchjob" and "trainjob" create such a job for each trial.
        job: YAML text with what each job gets.
        data_root: Where the shared volume is mounted.

    Returns:
        Their numbers.
    """
    from citeflow.experiments import tuning_steps

    return tuning_steps.tune_trials(
        graph, trials, run_name, workers, run_id, launcher, job, data_root=data_root
    )
