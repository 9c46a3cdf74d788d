"""Split a citation graph and lay it out for training."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def preprocess(
    raw: dsl.Input[dsl.Dataset],
    raw_sha256: str,
    settings: str,
    data_root: str,
    prepared_graph: dsl.Output[dsl.Dataset],
) -> str:
    """Split a citation graph and lay it out as memory-mapped arrays on the shared volume.

    Args:
        raw: Manifest of a RawDataset.
        raw_sha256: Its digest; as a parameter it is what the cache of Kubeflow Pipelines looks at.
        settings: YAML text with the section `data`.
        data_root: Where the shared volume is mounted.
        prepared_graph: Manifest of the PreparedGraph.

    Returns:
        Digest of the PreparedGraph.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    return stages.preprocess(raw, raw_sha256, settings, data_root=data_root, graph=prepared_graph)
