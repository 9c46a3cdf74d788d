"""The comparison experiment: several models with several seeds, and which of them is best."""

from pathlib import Path
from statistics import mean

from citeflow.artifacts import Artifact, Metrics, component_entrypoint, log_metrics
from citeflow.experiments import comparison_page, significance, trials
from citeflow.experiments.trials import Share
from citeflow.paths import RunPaths
from citeflow.utils.logging import log


@component_entrypoint()
def comparison_trials(
    settings: str,
    share: Share,
    models: str,
    seeds: list[object],
    workers: int,
    parallel: int,
    *,
    data_root: str,
) -> list[Share]:
    """Plan the trainings; return those of each step, as the items of a loop."""
    planned = trials.comparison_trials(settings, share["run"], models, seeds, workers)
    return trials.start("compare", planned, share, parallel, data_root=data_root)


@component_entrypoint()
def comparison_report(
    report_sha256s: list[str],
    run: str,
    out_dir: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
    metrics: Metrics,
) -> None:
    """Publish the table and the plots of the models, on the volume and on the run page."""
    outcomes = trials.read_outcomes(RunPaths(Path(data_root), run), report_sha256s)
    ranked = significance.rank_models(outcomes)
    dataset = outcomes[0].report.dataset
    experiment = RunPaths(Path(data_root), run)
    texts = {
        "comparison.md": comparison_page.render_markdown(dataset, ranked),
        "comparison.html": comparison_page.render_html(dataset, ranked),
        "comparison.csv": significance.to_csv(ranked),
    }
    out = trials.write_results(experiment, out_dir, texts, summary=summary, page=page)
    name = ranked[0].names[1]
    log_metrics(metrics, {f"{name}_{each.name}": mean(each.test) for each in ranked})
    log("compare", "done", page=out / "comparison.html", tensorboard=f"--logdir {experiment.logs}")
