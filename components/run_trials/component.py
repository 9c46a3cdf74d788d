"""Train, evaluate and publish some of the trials of an experiment."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def run_trials(
    graph: dsl.Input[dsl.Dataset],
    trials: str,
    run_name: str,
    run_id: str,
    launcher: str,
    job: str,
    data_root: str,
) -> str:
    """Train, evaluate and publish some of the trials of an experiment, one after the other.

    Args:
        graph: Manifest of the PreparedGraph.
        trials: Their names.
        run_name: Name of the experiment.
        run_id: Id of the pipeline run, a label of each job.
        launcher: "local" trains in this step, "pytorchjob", "trainjob" and "ray" in a job each.
        job: YAML text with the settings of each job.
        data_root: Mount path of the shared volume.

    Returns:
        Digests of their reports.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import running

    return running.run_trials(graph, trials, run_name, run_id, launcher, job, data_root=data_root)
