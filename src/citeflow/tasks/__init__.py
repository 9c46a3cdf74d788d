"""The tasks that citeflow can train, by name."""

from citeflow.errors import ConfigError
from citeflow.tasks.base import Task
from citeflow.tasks.citation import CitationTask

CITATION = "citation"

TASKS: dict[str, Task] = {
    CITATION: CitationTask(),
}


def get_task(name: str) -> Task:
    """Look up a task.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in TASKS:
        raise ConfigError("unknown task", name, hint=f"one of {', '.join(TASKS)}")
    return TASKS[name]
