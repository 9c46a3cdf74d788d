"""The seam between the platform's server and the place where runs take place.

The server keeps who asked for what, in which order it starts, and who may see it. A backend starts
a run, tells how it stands from the run's own records, and ends it. It keeps nothing in memory: a
server that is killed and started again gets the same answers for the same `Submitted`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from citeflow.paths import RunPaths

Phase = Literal["absent", "pending", "running", "succeeded", "failed", "stopped"]
"""State of an attempt of a run: never started here; accepted, and waiting for machines; at work; or
ended, `stopped` by a signal, so that another attempt goes on from its checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resources:
    """An amount of a machine, or of a cluster."""

    cores: int
    memory: int
    """Bytes."""

    disk: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A run as a user has asked for it."""

    id: str
    user: str
    name: str
    """That of its folder and its job; unique among the runs of the user."""

    task: str
    """Key in `citeflow.tasks.TASKS`."""

    dataset: str
    """Name of a dataset, a URL, or the path of an upload."""

    settings: str
    """All settings as YAML."""

    workers: int
    cores: int
    """Cores that it may use."""

    memory: int
    """Bytes that it is expected to need; 0 where nobody knows."""

    attempt: int
    """1 for the first start, one more for each time that it is resumed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """Standing of an attempt."""

    phase: Phase
    detail: str = ""
    """Reason for it, in a line: of a failure, or of a wait."""

    started: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentState:
    """Standing of the place where a user's runs take place."""

    state: Literal["ready", "preparing", "suspended"]
    detail: str = ""
    links: Mapping[str, str] | None = None
    """URLs by name, such as that of TensorBoard."""

    used: Resources | None = None
    """Use of the quota, where the place counts it; None leaves that to the server."""


class Backend(Protocol):
    """A place where runs take place: this machine, or a cluster.

    Every method may be called from several threads, and may raise a CiteflowError: UnavailableError
    where the place does not answer at the moment.
    """

    def sizes(self) -> Mapping[str, Resources]:
        """Return the sizes of an environment by name, the smallest first."""

    def capacity(self) -> Resources | None:
        """Return all that runs may use together; None where the place has a queue of its own."""

    def code_problem(self) -> str:
        """Say why a run cannot have code of its user's own; "" where it can."""

    def ensure_environment(self, user: str, size: Resources) -> None:
        """Make the environment of a user, or change its size; repeated, it changes nothing."""

    def environment(self, user: str) -> EnvironmentState:
        """Return how the environment of a user stands."""

    def remove_environment(self, user: str) -> None:
        """Delete the environment of a user with all of its files; repeated, it does nothing."""

    def suspend(self, user: str) -> None:
        """Let what is at work in the environment of a user wait, where the place can do that.

        The queue starts nothing more for the user. Repeated, it does nothing; nor without one.
        """

    def wake(self, user: str) -> None:
        """Take a suspension back; repeated, it does nothing."""

    def folder(self, user: str) -> Path:
        """Return the data root of a user, as this process sees it."""

    def start(self, run: Submitted) -> None:
        """Start an attempt of a run and return at once.

        The same attempt is started once, however often and by whichever process it is asked for.
        """

    def state(self, run: Submitted) -> RunState:
        """Return how the attempt stands, by the records of the run."""

    def cancel(self, run: Submitted) -> None:
        """Ask the run to stop; it saves a checkpoint first. Repeated, it does nothing."""

    def delete(self, run: Submitted) -> None:
        """Delete the files of a run that has ended; repeated, it does nothing."""

    def lines(self, run: Submitted, after: int) -> Sequence[str]:
        """Return the lines of the log behind the first `after` ones, those of all attempts."""

    def job(self, run: Submitted) -> str:
        """Return the job that trains it as YAML, for people to read."""


def paths_of(backend: Backend, run: Submitted) -> RunPaths:
    """Return the paths of a run: its metrics, report and model are files there."""
    return RunPaths(backend.folder(run.user), run.name)
