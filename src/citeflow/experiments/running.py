"""Run the trials of an experiment: train, evaluate and publish, one after the other in one step.

A pipeline step of its own costs some 20 s on a cluster, more than many a trial, and nothing is
gained by a border between trials: what is complete is found by content when the step is repeated.
"""

from pathlib import Path

from citeflow import files
from citeflow.artifacts import (
    EVAL_REPORT,
    Artifact,
    component_entrypoint,
    resolve_artifact,
)
from citeflow.errors import CorruptError
from citeflow.experiments import trials
from citeflow.experiments.trials import Trial
from citeflow.files import termination_message
from citeflow.paths import RunPaths
from citeflow.stages import TrainingRequest, fit
from citeflow.tasks import evaluate, get_task
from citeflow.tasks.base import Task
from citeflow.utils.logging import log


@component_entrypoint()
def run_trials(
    graph: Artifact,
    names: str,
    run: str,
    run_id: str,
    launcher: str,
    job: str,
    *,
    data_root: str,
) -> str:
    """Run some of the trials of an experiment; return the digests of their EvalReports."""
    experiment = RunPaths(Path(data_root), run)
    planned = {trial.name: trial for trial in trials.read_plan(experiment)}
    sha256s = []
    for number, name in enumerate(names.split(), 1):
        # kfp.local goes on with the other steps of a loop when one has failed.
        if termination_message.read() is not None:
            break
        trials.check_name_held(experiment, run_id)
        log("trial", "starts", name=name, number=number, of=len(names.split()))
        trial = planned.get(name)
        if trial is None:
            what = "not in the plan of this experiment"
            raise CorruptError(what, name, hint=trials.NAME_TAKEN)
        task = get_task(trial.config.task)
        prepared = resolve_artifact(graph, task.prepared_kind, data_root)
        request = TrainingRequest(launcher, job, trial.workers, run_id)
        sha256s.append(
            _run_trial(task, prepared, RunPaths(Path(data_root), trial.run_name), trial, request)
        )
    return " ".join(sha256s)


def _run_trial(
    task: Task, graph: Path, run: RunPaths, trial: Trial, request: TrainingRequest
) -> str:
    model = fit(graph, run, trial.config, request)
    report = evaluate(model, data=graph, run=run)
    task.publish(report, model=model, run=run, out=run.published)
    # The experiment has other trials, which MLflow being away must not end.
    task.log_to_mlflow(report, model=model, run=run, out=run.published, is_required=False)
    return files.read_manifest(report, EVAL_REPORT).sha256
