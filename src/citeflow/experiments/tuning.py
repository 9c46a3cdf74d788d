"""The tuning experiment: a search for better settings, and the best model that it finds."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from citeflow import config, files
from citeflow.artifacts import (
    TRAINED_MODEL,
    Artifact,
    Metrics,
    component_entrypoint,
    log_metrics,
    resolve_artifact,
    set_metadata,
)
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, TrainingError
from citeflow.experiments import search_space, study, tuning_page
from citeflow.experiments.study import Definition
from citeflow.experiments.trials import Share, check_name_held, take_name, write_results
from citeflow.experiments.tuning_page import SearchResult
from citeflow.files import termination_message
from citeflow.paths import RunPaths
from citeflow.reporting import event_files
from citeflow.stages import TrainingRequest, fit
from citeflow.tasks import get_task, load_settings
from citeflow.utils.logging import log
from citeflow.utils.records import Record

SUMMARY = "tuning.json"


class Summary(Record):
    """Content of `tuning.json`: the result of a search in words, and how to train with it."""

    verdict: str
    options: str
    """Options of a command that trains with the best settings."""
    protocol: str = ""
    """Protocol of the validation score that trials were compared by, where the task has several."""


class BestTrial(NamedTuple):
    """Outputs of the component `tuning_report`."""

    model_sha256: str
    out_dir: str


@component_entrypoint()
def create_study(
    graph: Artifact,
    settings: str,
    space: str,
    trials: int,
    parallel: int,
    workers: int,
    share: Share,
    *,
    data_root: str,
) -> list[Share]:
    """Create or resume a study; return the trials of each process, as the items of a loop."""
    from citeflow.reporting.publish import check_output_folders

    search_space.check_trials(trials, parallel)
    if parallel > 1 and "CITEFLOW_POD_NAME" in os.environ and not study.is_shared():
        hint = (
            "SQLite is not safe from several pods: put the URL of a database into the Secret "
            "citeflow-study as url, or take 1"
        )
        raise ConfigError("parallel trials need a database", f"parallel={parallel}", hint=hint)
    paths = RunPaths(Path(data_root), share["run"])
    check_output_folders(paths.data_root, paths.published)
    base = load_settings(text=settings)
    kind = get_task(base.task).prepared_kind
    prepared = resolve_artifact(graph, kind, data_root)
    definition = Definition(
        base=base,
        space=search_space.from_yaml(space, base),
        workers=workers,
        graph_sha256=files.read_manifest(prepared, kind).sha256,
    )
    study.create_or_resume(paths, definition, trials)
    take_name(paths, share["run_id"])
    log("tune", "has trials", num=trials, parallel=parallel, logs=paths.logs)
    shares = study.split_trials(trials, parallel)
    return [{**share, "trials": " ".join(map(str, numbers))} for numbers in shares]


@component_entrypoint()
def train_trials(
    graph: Artifact,
    trials: str,
    run: str,
    workers: int,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
) -> str:
    """Train the trials of one process, one after the other; return their numbers."""
    paths = RunPaths(Path(data_root), run)
    definition = study.read_definition(paths)
    task = get_task(definition.base.task)
    prepared = resolve_artifact(graph, task.prepared_kind, data_root)
    request = TrainingRequest(launcher, job, workers, run_id)

    def train(trial: RunPaths, settings: TaskConfig) -> float:
        model = fit(prepared, trial, settings, request)
        return task.validation_score(model, data=prepared, settings=settings)

    def is_stopped() -> bool:
        check_name_held(paths, run_id)
        return termination_message.read() is not None

    curve = task.criterion(definition.base).curve
    study.search(
        paths,
        map(int, trials.split()),
        definition,
        train=train,
        read_validations=lambda trial: read_validations(trial.logs, curve),
        is_stopped=is_stopped,
    )
    return trials


def read_validations(logs: Path, curve: str) -> Sequence[float]:
    """Read the validation scores of a training from its event files, the latest of each step.

    The logs are the only thing that a process of this machine and a pod both write in training.

    Args:
        logs: folder of the event files.
        curve: tag of the score; empty where no validation measures it, and there are none then.
    """
    score_by_step: dict[int, float] = {}
    if not curve:
        return []
    for path in sorted(logs.glob(f"events.out.tfevents.*.{event_files.TRAIN}")):
        first = event_files.first_step(path)
        # A training that is resumed repeats the steps since its checkpoint.
        if first is not None:
            score_by_step = {step: score for step, score in score_by_step.items() if step < first}
        for scalar in event_files.read_scalars(path, curve):
            score_by_step[scalar.step] = scalar.value
    return list(score_by_step.values())


@component_entrypoint()
def tuning_report(
    shares: Sequence[str],
    graph: Artifact,
    run: str,
    *,
    data_root: str,
    summary: Artifact,
    page: Artifact,
    model: Artifact,
    metrics: Metrics,
) -> BestTrial:
    """Publish the trials, on the volume and on the run page, and return the best one's model."""
    paths = RunPaths(Path(data_root), run)
    num_trials = sum(len(numbers.split()) for numbers in shares)
    definition = study.read_definition(paths)
    task = get_task(definition.base.task)
    prepared = resolve_artifact(graph, task.prepared_kind, data_root)
    result = SearchResult(
        run=run,
        dataset=files.read_manifest(prepared, task.prepared_kind).text("dataset"),
        trials=study.read_trials(paths, num_trials),
        names=task.names,
        criterion=task.criterion(definition.base),
    )
    best = result.best
    if best is None:
        errors = [
            trial.user_attrs["error"] for trial in result.trials if "error" in trial.user_attrs
        ]
        hint = errors[0] if errors else "see the log"
        raise TrainingError("no trial has ended with a model", run, hint=hint)
    values = best.user_attrs["values"]
    options = search_space.as_options(values)
    settings = config.to_yaml(search_space.apply(definition.base, values))
    texts = {
        "tuning.md": tuning_page.render_markdown(result, options),
        "tuning.html": tuning_page.render_html(result, options),
        "trials.csv": tuning_page.to_csv(result),
        "best.yaml": f"# Best settings of the search {run}, for --config.\n{settings}",
    }
    out = write_results(paths, "", texts, summary=summary, page=page)
    outcome = Summary(
        verdict=tuning_page.verdict(result), options=options, protocol=result.criterion.protocol
    )
    files.write_json(out / SUMMARY, outcome.model_dump())
    folder = study.trial_run(paths, best.number).model
    sha256 = set_metadata(model, folder, TRAINED_MODEL, data_root)
    files.copy_directory(folder, Path(model.path))
    figures = {
        f"best_{result.criterion.name}": best.value,
        f"default_{result.criterion.name}": result.default_score,
        "trials": num_trials,
    }
    log_metrics(metrics, figures)
    log("tune", "done", page=out / "tuning.html", best=best.number)
    return BestTrial(sha256, str(out.relative_to(paths.data_root)))
