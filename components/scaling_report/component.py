"""Publish the table and the plots of a scaling experiment."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scaling_report(
    report_sha256s: list,
    run: str,
    launcher: str,
    out_dir: str,
    data_root: str,
    scaling_table: dsl.Output[dsl.Markdown],
    scaling_page: dsl.Output[dsl.HTML],
    scaling_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Publish the table and the plots of a scaling experiment.

    Args:
        report_sha256s: Digests of the trainings' reports.
        run: Name of the experiment.
        launcher: What trained; the workers of "local" share one machine.
        out_dir: Folder for table and page, relative to data_root; empty takes runs/NAME/published.
        data_root: Mount path of the shared volume.
        scaling_table: The table.
        scaling_page: The table with plots, as one self-contained page.
        scaling_metrics: Speed-up of each training.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import scaling

    scaling.scaling_report(
        report_sha256s,
        run,
        launcher,
        out_dir,
        data_root=data_root,
        summary=scaling_table,
        page=scaling_page,
        metrics=scaling_metrics,
    )
