"""Publish the table and the plots of a model comparison."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def comparison_report(
    report_sha256s: list,
    run: str,
    out_dir: str,
    data_root: str,
    comparison_table: dsl.Output[dsl.Markdown],
    comparison_page: dsl.Output[dsl.HTML],
    comparison_metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Publish the table and the plots of a model comparison.

    Args:
        report_sha256s: Digests of the trainings' reports.
        run: Name of the comparison.
        out_dir: Folder for table and page, relative to data_root; empty takes runs/NAME/published.
        data_root: Mount path of the shared volume.
        comparison_table: The table.
        comparison_page: The table with plots, as one self-contained page.
        comparison_metrics: Mean test MRR of each model.
    """
    from citeflow.attempts import begin_attempt

    begin_attempt()
    from citeflow.experiments import comparison

    comparison.comparison_report(
        report_sha256s,
        run,
        out_dir,
        data_root=data_root,
        summary=comparison_table,
        page=comparison_page,
        metrics=comparison_metrics,
    )
