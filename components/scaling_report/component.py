"""Put the table and the plots of a scaling sweep where people look."""

from kfp import dsl

from components.base import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def scaling_report(
    trials: list,
    report_sha256s: list,
    run: str,
    launcher: str,
    out_dir: str,
    data_root: str,
    summary: dsl.Output[dsl.Markdown],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Put the table and the plots of a scaling sweep where people look.

    Args:
        trials: The runs of the sweep.
        report_sha256s: Digests of their reports.
        run: Name of the sweep.
        launcher: What trained; "local" shares one machine.
        out_dir: Folder for table and page, relative to data_root; empty takes the folder of the sweep on the volume.
        data_root: Where the shared volume is mounted.
        summary: The table.
        page: The table with plots, as one self-contained page.
        metrics: Speed-up of each run.
    """
    from citeflow.experiments import steps

    steps.scaling_report(
        trials,
        report_sha256s,
        run,
        launcher,
        out_dir,
        data_root=data_root,
        summary=summary,
        page=page,
        metrics=metrics,
    )
