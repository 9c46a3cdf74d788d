"""Publish the trials of a search, and return the best model."""

from typing import NamedTuple

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tuning_report(
    shares: list[str],
    graph: dsl.Input[dsl.Dataset],
    run_name: str,
    data_root: str,
    tuning_table: dsl.Output[dsl.Markdown],
    tuning_page: dsl.Output[dsl.HTML],
    best_model: dsl.Output[dsl.Model],
    tuning_metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("BestTrial", [("model_sha256", str), ("out_dir", str)]):
    """Publish the trials of a search, and return the best model.

    Args:
        shares: Numbers of the trials that each process trained.
        graph: Manifest of the PreparedGraph.
        run_name: Name of the search.
        data_root: Mount path of the shared volume.
        tuning_table: Table of the trials, and whether the best one beats the initial settings.
        tuning_page: The same with plots, as one self-contained page.
        best_model: The TrainedModel with the best validation MRR in the protocol of the settings.
        tuning_metrics: That MRR, and that of the initial settings.

    Returns:
        model_sha256: Digest of the best model.
        out_dir: Folder with the results, relative to data_root.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import tuning

    return tuning.tuning_report(
        shares,
        graph,
        run_name,
        data_root=data_root,
        summary=tuning_table,
        page=tuning_page,
        model=best_model,
        metrics=tuning_metrics,
    )
