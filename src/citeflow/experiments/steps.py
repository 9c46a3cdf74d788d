"""What the components of the scaling sweep and of the model comparison call."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from citeflow import files, paths
from citeflow.artifacts import Artifact, Metrics, log_figures, step
from citeflow.experiments import comparison, comparison_page, scaling, scaling_page, trials
from citeflow.reporting.publish import check_folder
from citeflow.utils import system
from citeflow.utils.logging import log

Json = dict[str, Any]


@step
def scaling_trials(
    settings: str,
    run: str,
    workers: list[object],
    epochs: list[object],
    launcher: str,
    *,
    data_root: str,
) -> list[Json]:
    """The runs of a scaling sweep, as the items of a loop."""
    planned = trials.scaling_trials(settings, run, workers, epochs)
    most, there = max(trial.workers for trial in planned), system.num_cores()
    if launcher == "local" and most > there:
        log("sweep", "has more workers than cores", workers=most, cores=there)
    return _begin("sweep", planned, run, data_root)


@step
def comparison_trials(
    settings: str, run: str, models: str, seeds: list[object], workers: int, *, data_root: str
) -> list[Json]:
    """The runs of a comparison, as the items of a loop."""
    return _begin(
        "compare", trials.comparison_trials(settings, run, models, seeds, workers), run, data_root
    )


@step
def scaling_report(
    items: list[Json],
    report_sha256s: list[str],
    run: str,
    launcher: str,
    out_dir: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
    metrics: Metrics,
) -> None:
    """Put the table and the plots of a sweep where people look, and on the run page."""
    found = trials.outcomes(items, report_sha256s, Path(data_root))
    there = system.num_cores() if launcher == "local" else None
    table = scaling.rows(found, cores=there)
    title = str(found[0].report["dataset"])
    text = scaling_page.summary(title, table, cores=there)
    html = scaling_page.draw_page(title, table, cores=there)
    out = _publish(
        "scaling", run, out_dir, data_root, (text, html, scaling.as_csv(table)), (summary, page)
    )
    log_figures(
        metrics,
        {f"speed-up, {row.workers} workers, {row.epochs:g} epochs": row.speed_up for row in table},
    )
    logs = paths.log_folder(Path(data_root), run)
    log("sweep", "done", page=out / "scaling.html", tensorboard=f"--logdir {logs}")


@step
def comparison_report(
    items: list[Json],
    report_sha256s: list[str],
    run: str,
    out_dir: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
    metrics: Metrics,
) -> None:
    """Put the table and the plots of a comparison where people look, and on the run page."""
    found = trials.outcomes(items, report_sha256s, Path(data_root))
    ranked = comparison.standings(found)
    title = str(found[0].report["dataset"])
    text, html = comparison_page.summary(title, ranked), comparison_page.draw_page(title, ranked)
    out = _publish(
        "comparison",
        run,
        out_dir,
        data_root,
        (text, html, comparison.as_csv(ranked)),
        (summary, page),
    )
    log_figures(
        metrics,
        {f"{each.name} test mrr": sum(each.test_mrr) / len(each.test_mrr) for each in ranked},
    )
    log(
        "compare",
        "done",
        page=out / "comparison.html",
        tensorboard=f"--logdir {paths.log_folder(Path(data_root), run)}",
    )


def _begin(command: str, planned: Sequence[trials.Trial], run: str, data_root: str) -> list[Json]:
    """Find out whether the results can be written, before anything is trained."""
    check_folder(paths.published_folder(Path(data_root), run))
    log(command, "has runs", num=len(planned), logs=paths.log_folder(Path(data_root), run))
    return [trial.item() for trial in planned]


def _publish(
    name: str,
    run: str,
    out_dir: str,
    data_root: str,
    content: tuple[str, str, str],
    shown: tuple[Artifact, Artifact],
) -> Path:
    """Write Markdown, page and CSV of an experiment; the first two are shown on the run page, too."""
    out = Path(data_root) / out_dir if out_dir else paths.published_folder(Path(data_root), run)
    for suffix, text in zip(("md", "html", "csv"), content, strict=True):
        files.write_text(out / f"{name}.{suffix}", text)
    for artifact, text in zip(shown, content, strict=False):
        files.write_text(Path(artifact.path), text)
    return out
