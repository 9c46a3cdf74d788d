"""Train some of the trials of a search."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train_trials(
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
        run_id: Id of the pipeline run, a label of each job.
        launcher: "local" trains in this step, "pytorchjob", "trainjob" and "ray" in a job each.
        job: YAML text with the settings of each job.
        data_root: Mount path of the shared volume.

    Returns:
        Their numbers.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import tuning

    return tuning.train_trials(
        graph, trials, run_name, workers, run_id, launcher, job, data_root=data_root
    )
