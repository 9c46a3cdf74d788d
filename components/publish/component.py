"""Put report, model and TensorBoard logs where people look."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def publish(
    report: dsl.Input[dsl.Artifact],
    report_sha256: str,
    model: dsl.Input[dsl.Model],
    out_dir: str,
    data_root: str,
    run_summary: dsl.Output[dsl.Markdown],
    report_page: dsl.Output[dsl.HTML],
) -> None:
    """Put report, model and TensorBoard logs where people look.

    Args:
        report: The report of an EvalReport.
        report_sha256: Digest of the EvalReport.
        model: The TrainedModel that was evaluated.
        out_dir: Folder for report and model, relative to data_root; empty takes the folder of the
            run.
        data_root: Where the shared volume is mounted.
        run_summary: Table of the results, and their paths.
        report_page: The report with its plots, as one self-contained page.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow import stages

    stages.publish(
        report,
        report_sha256,
        model,
        out_dir,
        data_root=data_root,
        summary=run_summary,
        page=report_page,
    )
