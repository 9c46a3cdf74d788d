"""The states of a run, and the error that a run which has ended stands for."""

import re
from typing import Any

from citeflow.errors import StoppedError, TrainingError

SUCCEEDED = "SUCCEEDED"
FAILED = "FAILED"
CANCELED = "CANCELED"
CANCELING = "CANCELING"
TERMINAL = {SUCCEEDED, FAILED, CANCELED, "SKIPPED"}


def check_succeeded(run: Any) -> None:
    """Raise the error that a run which has ended stands for.

    Raises:
        TrainingError: it failed: exit code 75.
        StoppedError: it was cancelled: exit code 143.
    """
    if run.state == CANCELED:
        raise StoppedError("the run was cancelled", run.run_id)
    if run.state != SUCCEEDED:
        failed = ", ".join(failed_stages(run))
        what = f"the run ended as {run.state}" + (f" at {failed}" if failed else "")
        raise TrainingError(what, run.run_id, hint=f"`citeflow runs logs {run.run_id}`")


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
