"""Runs on a cluster: in the namespace of their user, with files on the user's volume there."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from citeflow import files
from citeflow.errors import ConfigError, CorruptError, NotFoundError, UnavailableError
from citeflow.kubernetes import client as kubernetes
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.environment_objects import EnvironmentSettings, Size
from citeflow.kubernetes.job_spec import IMAGE, MOUNT, quantity
from citeflow.kubernetes.profiles import Amounts, Environments
from citeflow.platform.backends.base import (
    EnvironmentState,
    Resources,
    RunState,
    Submitted,
    paths_of,
)
from citeflow.platform.backends.cluster_jobs import JobRuns
from citeflow.platform.backends.cluster_pipelines import PipelineRuns
from citeflow.platform.backends.pod_log import PodLog
from citeflow.platform.beneath import leads_beneath
from citeflow.utils import records
from citeflow.utils.records import Str

SETTINGS = "settings.yaml"
PATIENCE_S = 10.0
"""How long a call is repeated while the API does not answer: somebody waits for the page."""

ENDED = ("succeeded", "failed", "stopped")


class ClusterSettings(EnvironmentSettings):
    """The file with the settings of a platform on a cluster."""

    pipelines: Str = ""
    """URL of the API of a Kubeflow Pipelines that has users; empty starts each run as a Job."""

    train_image: Str = IMAGE
    """Image of the workers of a pipeline's jobs."""

    volumes: Str = "/mnt/users"
    """Folder in which the platform sees the volume of each user, named after its namespace."""


class Runs(Protocol):
    """One way to start runs on a cluster."""

    def start(self, run: Submitted, dataset: str, settings: str) -> None:
        """Start an attempt once; dataset and file of settings are as its pods see them."""

    def state(self, run: Submitted) -> RunState:
        """Return how the attempt stands."""

    def cancel(self, run: Submitted) -> None:
        """Ask the attempt to stop."""

    def delete(self, run: Submitted) -> None:
        """Delete all attempts from the cluster."""

    def log_id(self, run: Submitted) -> str:
        """Return the label of the pods of the attempt; empty where there are none."""

    def render(self, run: Submitted, dataset: str, settings: str) -> str:
        """Return the job that trains the attempt as YAML."""

    def code_problem(self) -> str:
        """Say why a run cannot have code of its user's own; "" where it can."""


class KubernetesBackend:
    """Runs on a cluster."""

    def __init__(self, client: KubeClient, settings: ClusterSettings) -> None:
        """Take the cluster, in the platform's own namespace."""
        self._settings = settings
        self._environments = Environments(client=client, settings=settings)
        self._runs: Runs = JobRuns(self._environments)
        if settings.pipelines:
            self._runs = PipelineRuns(self._environments, settings.pipelines, settings.train_image)
        self._lock = threading.Lock()
        self._tails: dict[Path, tuple[int, int]] = {}

    @property
    def environments(self) -> Environments:
        """The environments of the users."""
        return self._environments

    def sizes(self) -> Mapping[str, Resources]:
        """Return the sizes of the settings."""
        return {name: _resources(size) for name, size in self._settings.sizes.items()}

    def capacity(self) -> None:
        """Return None: pods wait for their nodes, and jobs in Kueue's queue where there is one."""

    def code_problem(self) -> str:
        """Say why no pod of a user can run code; "" where one can."""
        try:
            return self._runs.code_problem()
        except UnavailableError as error:
            return f"{error.what}: {error.value}"

    def ensure_environment(self, user: str, size: Resources) -> None:
        """Make the namespace of a user, or change its quota."""
        wanted = Size(cores=size.cores, memory=str(size.memory), disk=str(size.disk))
        self._environments.ensure(user, wanted)

    def environment(self, user: str) -> EnvironmentState:
        """Return how the namespace of a user stands, with the use that its quota counts."""
        standing = self._environments.standing(user)
        if standing.state == "absent":
            return EnvironmentState(state="preparing", detail="there is no namespace yet")
        used = standing.used
        return EnvironmentState(
            state=standing.state, detail=standing.detail, used=_used(used) if used else None
        )

    def remove_environment(self, user: str) -> None:
        """Delete the namespace of a user; the class of its volume decides about the files."""
        self._environments.remove(user)

    def suspend(self, user: str) -> None:
        """Let the jobs of a user save a checkpoint, end their pods and wait."""
        if self._environments.standing(user).state != "absent":
            self._environments.suspend(user)

    def wake(self, user: str) -> None:
        """Let the jobs of a user go on from their checkpoints."""
        self._environments.wake(user)

    def folder(self, user: str) -> Path:
        """Return the volume of a user, where the platform sees it."""
        return Path(self._settings.volumes) / self._environments.namespace(user)

    def start(self, run: Submitted) -> None:
        """Start an attempt."""
        if self._environments.standing(run.user).state == "suspended":
            raise ConfigError("the environment is suspended", run.user, hint="an admin wakes it")
        folder = self._own(run)
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / SETTINGS, run.settings)
        self._runs.start(run, self._dataset(run), self._seen(run, folder / SETTINGS))

    def state(self, run: Submitted) -> RunState:
        """Return how the attempt stands; the rest of its log is kept before its end is told."""
        state = self._runs.state(run)
        if state.phase in ENDED:
            # A log that may not be read, or is none, delays no end.
            with contextlib.suppress(ConfigError, CorruptError):
                self._collect(run, has_ended=True)
        return state

    def cancel(self, run: Submitted) -> None:
        """Ask the run to stop."""
        self._runs.cancel(run)

    def delete(self, run: Submitted) -> None:
        """Delete the files of a run, and what the cluster has of it."""
        folder, logs = self._own(run), paths_of(self, run).logs
        if not leads_beneath(self.folder(run.user), logs):
            raise CorruptError("the logs of the run lead elsewhere", run.name)
        self._runs.delete(run)
        files.delete_directory(logs)
        files.delete_directory(folder)

    def lines(self, run: Submitted, after: int) -> Sequence[str]:
        """Return lines of the log, after a look at what the pods have written."""
        with contextlib.suppress(ConfigError, UnavailableError):  # what is known is shown
            self._collect(run, has_ended=False)
        log = PodLog(self._own(run))
        with self._lock:
            known = self._tails.get(log.folder, (0, 0))
        lines, end = log.lines(after, known)
        with self._lock:
            self._tails[log.folder] = (after + len(lines), end)
        return lines

    def job(self, run: Submitted) -> str:
        """Return the Job of the run, or the one that a step of its pipeline launches."""
        settings = self._seen(run, self._own(run) / SETTINGS)
        return self._runs.render(run, self._dataset(run), settings)

    def _collect(self, run: Submitted, *, has_ended: bool) -> None:
        log = PodLog(self._own(run))
        if log.is_complete(run.attempt):
            return
        if log_id := self._runs.log_id(run):
            client = self._environments.client_of(run.user)
            log.collect(client, log_id, run.attempt, has_ended=has_ended)

    def _own(self, run: Submitted) -> Path:
        """Return the folder of a run, which is what it seems to be.

        Raises:
            CorruptError: a link leads out of the volume of the user.
        """
        folder = paths_of(self, run).folder
        if not leads_beneath(self.folder(run.user), folder):
            raise CorruptError("the folder of the run leads elsewhere", run.name)
        return folder

    def _dataset(self, run: Submitted) -> str:
        """Return the dataset of a run as its pods see it."""
        path = Path(run.dataset)
        return self._seen(run, path) if path.is_absolute() else run.dataset

    def _seen(self, run: Submitted, path: Path) -> str:
        """Return where the pods of a run see a file of the user's volume.

        Raises:
            ConfigError: it is not on that volume.
        """
        root = self.folder(run.user)
        if path.is_relative_to(root):
            return str(MOUNT / path.relative_to(root))
        if path.is_relative_to(MOUNT):
            return str(path)
        raise ConfigError("not on the volume of the user", path)


def load(path: Path) -> KubernetesBackend:
    """Connect to the cluster of this pod, or of the kubeconfig, with the settings of a file.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: there is no cluster, or a setting is wrong.
    """
    if not path.is_file():
        raise NotFoundError("no such file", path)
    values = records.parse_yaml(path.read_text(), str(path))
    settings = records.load(ClusterSettings, values, name="cluster")
    return KubernetesBackend(kubernetes.connect(patience_s=PATIENCE_S), settings)


def _resources(size: Size) -> Resources:
    return Resources(
        cores=size.cores, memory=int(quantity(size.memory)), disk=int(quantity(size.disk))
    )


def _used(amounts: Amounts) -> Resources:
    return Resources(cores=amounts.cores, memory=amounts.memory, disk=amounts.disk)
