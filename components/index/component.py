"""Make the index of a model that a server answers from, and deploy it."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def index(
    model: dsl.Input[dsl.Model],
    model_sha256: str,
    graph: dsl.Input[dsl.Artifact],
    deploy: str,
    data_root: str,
    serving_index: dsl.Output[dsl.Artifact],
) -> str:
    """Make the index of a model that a server answers from, and deploy it.

    Args:
        model: A TrainedModel.
        model_sha256: Its digest.
        graph: The prepared data that it was trained on.
        deploy: Name of the service whose servers take the index up; a folder below serving/ on the
            volume.
        data_root: Where the shared volume is mounted.
        serving_index: Manifest of the ServingIndex.

    Returns:
        Digest of the ServingIndex.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    return stages.index(
        model,
        model_sha256,
        graph,
        data_root=data_root,
        index=serving_index,
        deploy=deploy,
    )
