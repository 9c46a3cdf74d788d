"""The scaling experiment: training time over numbers of workers and of epochs."""

from pathlib import Path

from citeflow.artifacts import Artifact, Metrics, component_entrypoint, log_metrics
from citeflow.experiments import scaling_page, speedup, trials
from citeflow.experiments.trials import Share
from citeflow.kubernetes.launchers import LOCAL
from citeflow.paths import RunPaths
from citeflow.tasks import get_task
from citeflow.utils import system
from citeflow.utils.logging import log


@component_entrypoint()
def scaling_trials(
    settings: str,
    share: Share,
    workers: list[object],
    epochs: list[object],
    parallel: int,
    *,
    data_root: str,
) -> list[Share]:
    """Plan the trainings; return those of each step, as the items of a loop."""
    planned = trials.scaling_trials(settings, share["run"], workers, epochs)
    most = max(trial.workers for trial in planned)
    cores = system.num_cores()
    if share["launcher"] == LOCAL and most > cores:
        log("scaling", "has more workers than cores", workers=most, cores=cores)
    return trials.start("scaling", planned, share, parallel, data_root=data_root)


@component_entrypoint()
def scaling_report(
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
    """Publish the table and the plots of the trainings, on the volume and on the run page."""
    outcomes = trials.read_outcomes(RunPaths(Path(data_root), run), report_sha256s)
    cores = system.num_cores() if launcher == LOCAL else None
    rows = speedup.build_rows(outcomes, cores=cores)
    if disturbed := [row.others_share or 0.0 for row in rows if row.is_disturbed]:
        share = f"{100 * max(disturbed):.0f}%"
        hint = "repeat it with nothing else at work"
        log("scaling", "others took cores", trainings=len(disturbed), most=share, hint=hint)
    report = outcomes[0].report
    compared = report.compared()
    labels = scaling_page.Labels.of(get_task(report.config.task), compared)
    experiment = RunPaths(Path(data_root), run)
    texts = {
        "scaling.md": scaling_page.render_markdown(report.dataset, rows, labels, cores=cores),
        "scaling.html": scaling_page.render_html(report.dataset, rows, labels, cores=cores),
        "scaling.csv": speedup.to_csv(rows, compared.names[1:]),
    }
    out = trials.write_results(experiment, out_dir, texts, summary=summary, page=page)
    speed_ups = {
        f"speed_up_{row.workers}_workers_{row.epochs:g}_epochs": row.speed_up for row in rows
    }
    log_metrics(metrics, speed_ups)
    log("scaling", "done", page=out / "scaling.html", tensorboard=f"--logdir {experiment.logs}")
