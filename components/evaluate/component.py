"""Rank held-out citations with a model and with training-free baselines."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    model_sha256: str,
    graph: dsl.Input[dsl.Dataset],
    data_root: str,
    eval_report: dsl.Output[dsl.Artifact],
    test_metrics: dsl.Output[dsl.Metrics],
    roc_and_confusion: dsl.Output[dsl.ClassificationMetrics],
) -> str:
    """Rank held-out citations with a model and with training-free baselines.

    Args:
        model: A TrainedModel.
        model_sha256: Its digest; as a parameter, it decides what KFP takes from its cache.
        graph: Manifest of the PreparedGraph that the model was trained on.
        data_root: Where the shared volume is mounted.
        eval_report: The report as JSON.
        test_metrics: MRR, Hits, accuracy and AUC on the test citations, MRR among all papers, hard
            ones, and without references, and the MRR of the best baseline.
        roc_and_confusion: ROC curve and confusion matrix.

    Returns:
        Digest of the EvalReport.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    return stages.evaluate(
        model,
        model_sha256,
        graph,
        data_root=data_root,
        report=eval_report,
        metrics=test_metrics,
        classification=roc_and_confusion,
    )
