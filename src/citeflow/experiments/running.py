"""Run the trials of an experiment: train, evaluate and publish, one after the other in one step.

A pipeline step of its own costs some 20 s on a cluster, more than many a trial, and nothing is
gained by a border between trials: what is complete is found by content when the step is repeated.
"""

from pathlib import Path

from citeflow import files
from citeflow.artifacts import (
    EVAL_REPORT,
    PREPARED_GRAPH,
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
    prepared = resolve_artifact(graph, PREPARED_GRAPH, data_root)
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
        request = TrainingRequest(launcher, job, trial.workers, run_id)
        sha256s.append(
            _run_trial(prepared, RunPaths(Path(data_root), trial.run_name), trial, request)
        )
    return " ".join(sha256s)


def _run_trial(graph: Path, run: RunPaths, trial: Trial, request: TrainingRequest) -> str:
    from citeflow.evaluation.evaluator import evaluate
    from citeflow.reporting import mlflow
    from citeflow.reporting.publish import publish

    model = fit(graph, run, trial.config, request)
    report = evaluate(model, graph=graph, run=run)
    publish(report, model=model, run=run, out=run.published)
    # The experiment has other trials, which MLflow being away must not end.
    mlflow.log_run(report, model=model, run=run, out=run.published, is_required=False)
    return files.read_manifest(report, EVAL_REPORT).sha256
