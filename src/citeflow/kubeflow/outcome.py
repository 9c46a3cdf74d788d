"""The states of a run, and the error that a run which has ended stands for."""

import re
from collections.abc import Callable
from typing import Any

from citeflow.errors import CiteflowError, StoppedError, TrainingError

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELED = "CANCELED"
CANCELING = "CANCELING"
TERMINAL = {SUCCEEDED, FAILED, CANCELED, "SKIPPED"}


def run_error(
    run: Any, find_error: Callable[[str], CiteflowError | None] = lambda stage: None
) -> CiteflowError | None:
    """Return the error that a run which has ended stands for, None if it succeeded.

    Args:
        run: the run.
        find_error: returns the error that a stage ended with, if that can be known.

    Returns:
        TrainingError (exit code 75) if it failed, StoppedError (143) if it was cancelled.
    """
    if run.state == SUCCEEDED:
        return None
    if run.state == CANCELED:
        return StoppedError("the run was cancelled", run.run_id)
    stages = failed_stages(run)
    for stage in stages:
        if error := find_error(stage):
            return TrainingError(f"failed at {stage}: {error.what}", error.value, hint=error.hint)
    what = f"failed at {', '.join(stages)}" if stages else f"the run ended as {run.state}"
    return TrainingError(what, run.run_id, hint=f"`citeflow runs logs {run.run_id}`")


def failed_stages(run: Any) -> list[str]:
    """Return the stages of a run that failed.

    The server reports Argo's nodes as tasks too: the workflow and its root, drivers, executors, and
    the retries of each with a number in brackets. They are left out.
    """
    stages = set()
    for task in (run.run_details.task_details if run.run_details else None) or []:
        name = re.sub(r"\(\d+\)$", "", task.display_name or "")
        pods = [child.pod_name for child in task.child_tasks or [] if child.pod_name]
        workflows = {pod.rpartition("-")[0] for pod in pods}
        is_node = name in {"root", "executor", *workflows} or name.endswith("-driver")
        if task.state == FAILED and name and not is_node:
            stages.add(name)
    return sorted(stages)
