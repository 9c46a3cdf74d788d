"""The run that a page is opened for, as the command knows it."""

import contextlib
from pathlib import Path

from citeflow.config import TaskConfig
from citeflow.errors import CorruptError, NotFoundError
from citeflow.local_runs import read_status
from citeflow.paths import RunPaths
from citeflow.platform.schema import Value
from citeflow.tasks import get_task, load_settings
from citeflow.training.launch import read_job
from citeflow.utils import records
from citeflow.utils.records import Record


class Shown(Record):
    """A run of this machine, and what its records do not tell from the start."""

    data_root: Path
    name: str
    task: str
    dataset: str
    """Without secrets."""

    workers: int
    settings: dict[str, Value]
    """Those that are not the task's defaults, by full name."""

    published: Path
    """Where its report will be."""

    started: float | None = None
    """Start of this pipeline, in seconds since 1970; None takes the first start of the run."""

    @property
    def paths(self) -> RunPaths:
        """Paths of the run."""
        return RunPaths(self.data_root, self.name)


def of_records(run: RunPaths) -> Shown:
    """Describe a run by what it has left, or has written so far."""
    status = read_status(run)
    settings: TaskConfig = load_settings()
    with contextlib.suppress(NotFoundError, CorruptError):  # before its training there is no job
        job = read_job(run.job_file)
        settings = records.load(get_task(job.task).config, job.config, error=CorruptError)
    return Shown(
        data_root=run.data_root,
        name=run.name,
        task=settings.task,
        dataset=status.dataset if status else "",
        workers=len(list(run.logs.glob("rank-*"))) or 1,
        settings=changes(settings),
        published=run.published,
    )


def changes(settings: TaskConfig) -> dict[str, Value]:
    """Return the settings that are not the task's defaults, by full name."""
    defaults = load_settings(settings.task).to_dict()
    return {
        f"{section}.{key}": value if isinstance(value, (bool, int, float, str)) else str(value)
        for section, values in settings.to_dict().items()
        for key, value in values.items()
        if value != defaults[section][key]
    }


class Order(Record):
    """Everything that the process of a page gets, in one line."""

    shown: Shown
    token: str
    ticket: str
    """Key for the browser that it starts; "" starts none."""

    grace_s: float
    """Time for the pages to get the end, once the command has ended."""
