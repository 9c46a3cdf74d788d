"""Fit a GraphSAGE link predictor."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    graph: dsl.Input[dsl.Dataset],
    settings: str,
    workers: int,
    run_name: str,
    run_id: str,
    launcher: str,
    job: str,
    data_root: str,
    trained_model: dsl.Output[dsl.Model],
    train_metrics: dsl.Output[dsl.Metrics],
) -> str:
    """Fit a GraphSAGE link predictor with several processes in step.

    Args:
        graph: Manifest of a PreparedGraph.
        settings: YAML text with all settings.
        workers: Number of training processes.
        run_name: Name of the run, which its folders on the volume get.
        run_id: Id of the pipeline run, which the job gets as a label.
        launcher: "local" trains in this step; "pytorchjob", "trainjob" and "ray" create a job, and
            wait for it; "auto" takes the first that the cluster has.
        job: YAML text with the resources of the job.
        data_root: Where the shared volume is mounted.
        trained_model: The TrainedModel: weights as safetensors, everything else as JSON.
        train_metrics: Throughput, time and the best validation MRR.

    Returns:
        Digest of the TrainedModel.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    return stages.train(
        graph,
        settings,
        workers,
        run_name,
        run_id,
        launcher,
        job,
        data_root=data_root,
        model=trained_model,
        metrics=train_metrics,
    )
