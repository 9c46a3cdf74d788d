"""The states of a run, and the error that a run which has ended stands for."""

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from citeflow.errors import CiteflowError, StoppedError, TrainingError, error_from_dict

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELED = "CANCELED"
CANCELING = "CANCELING"
TERMINAL = {SUCCEEDED, FAILED, CANCELED, "SKIPPED"}


def run_error(
    run: Any,
    failed: Mapping[str, str],
    find_error: Callable[[str], CiteflowError | None] = lambda stage: None,
) -> CiteflowError | None:
    """Return the error that a run which has ended stands for, None if it succeeded.

    Args:
        run: the run.
        failed: the stages that failed, with what the server says of them.
        find_error: returns the error that a stage ended with, if that can be known.

    Returns:
        TrainingError (exit code 75) if it failed, StoppedError (143) if it was cancelled.
    """
    if run.state == SUCCEEDED:
        return None
    if run.state == CANCELED:
        return StoppedError("the run was cancelled", run.run_id)
    hint = f"`citeflow runs logs {run.run_id}`"
    for stage, message in failed.items():
        if error := find_error(stage) or read_error(message):
            return TrainingError(f"failed at {stage}: {error.what}", error.value, hint=error.hint)
        if message:
            return TrainingError(f"failed at {stage}", " ".join(message.split()), hint=hint)
    what = f"failed at {', '.join(failed)}" if failed else f"the run ended as {run.state}"
    return TrainingError(what, run.run_id, hint=hint)


def read_error(message: str) -> CiteflowError | None:
    """Read the error that a step left as JSON, among words of Kubernetes and Argo; None if none."""
    for start in re.finditer("{", message):
        with contextlib.suppress(ValueError, RecursionError):
            found, _ = json.JSONDecoder().raw_decode(message, start.start())
            if found.get("what") and found.get("kind"):
                return error_from_dict(found)
    return None


def failed_stages(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the stages of a run that failed, with what the server says of each.

    Servers with ML Metadata (up to 2.18) say nothing, and report Argo's nodes as tasks: the
    workflow and its root, drivers, executors, and the retries of each with a number in brackets.
    They are left out. Servers without it have `tasks` of types, in the view `FULL` of a run.

    Args:
        run: the run as the API has it.
    """
    stages = {}
    for task in (run.get("run_details") or {}).get("task_details") or []:
        name = re.sub(r"\(\d+\)$", "", task.get("display_name") or "")
        pods = [child.get("pod_name") or "" for child in task.get("child_tasks") or []]
        workflows = {pod.rpartition("-")[0] for pod in pods}
        is_node = name in {"root", "executor", *workflows} or name.endswith("-driver")
        if task.get("state") == FAILED and name and not is_node:
            stages[name] = ""
    for task in run.get("tasks") or []:
        if task.get("state") == FAILED and task.get("type") == "RUNTIME":
            status = task.get("status_metadata") or {}
            stages[task["name"]] = status.get("message") or task.get("lifecycle_message") or ""
    return dict(sorted(stages.items()))
