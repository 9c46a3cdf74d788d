"""The tasks that citeflow can train, by name."""

from collections.abc import Iterable
from pathlib import Path

from citeflow import config, files, own_model
from citeflow.config import CITATION, RENAMED, TaskConfig
from citeflow.errors import ConfigError
from citeflow.paths import RunPaths
from citeflow.tasks.base import Task
from citeflow.tasks.citation import CitationTask
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.task import ImagesTask
from citeflow.utils import records

TASKS: dict[str, Task] = {
    CITATION: CitationTask(),
    ImagesConfig.task: ImagesTask(),
}


def get_task(name: str) -> Task:
    """Look up a task.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in TASKS:
        raise ConfigError("unknown task", name, hint=f"one of {', '.join(TASKS)}")
    return TASKS[name]


def task_of(artifact: Path, kind: str) -> Task:
    """Return the task that a TrainedModel or an EvalReport belongs to."""
    return get_task(str(files.read_manifest(artifact, kind).facts.get("task", CITATION)))


def evaluate(model: Path, *, data: Path, run: RunPaths) -> Path:
    """Measure a TrainedModel on the test split; return the EvalReport.

    One that has code of its own is not read: its training has measured it, where its code runs.

    Raises:
        NotFoundError: there is no report of such a model.
    """
    made = own_model.report_of_training(model, run.report)
    return made or task_of(model, own_model.TRAINED_MODEL).evaluate(model, data=data, run=run)


def dataset_names() -> tuple[str, ...]:
    """Return the names of the datasets of all tasks."""
    return tuple(name for task in TASKS.values() for name in task.datasets)


def load_settings(
    task: str = "",
    *,
    preset: str = "default",
    file: Path | None = None,
    text: str = "",
    overrides: Iterable[str] = (),
) -> TaskConfig:
    """Read the settings of a task as `config.load` does those of citations.

    Args:
        task: a key of TASKS; empty takes the one that the settings name, or else citations.
        preset: one of the task's.
        file: YAML over it.
        text: YAML over that.
        overrides: `section.key=value`, over all.

    Raises:
        ConfigError: as `config.load`, or the settings are those of another task.
        NotFoundError: there is no such file.
    """
    changes = config.read_changes(file=file, text=text, overrides=overrides)
    named = str(changes.pop("task", task or CITATION))
    if task and named != task:
        raise ConfigError("settings of another task", named, hint=f"expected those of {task}")
    chosen = get_task(named)
    values = config.over_preset(preset, chosen.presets, changes)
    return records.load(chosen.config, values, renamed=RENAMED)
