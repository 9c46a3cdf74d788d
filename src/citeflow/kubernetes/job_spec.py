"""What a training asks of a cluster: the text of the run form's field `job`, checked once."""

import dataclasses
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from citeflow import __version__
from citeflow.errors import ConfigError
from citeflow.utils.records import convert, nearest

CLAIM, MOUNT = "citeflow-data", "/mnt/citeflow"
"""The persistent volume claim (ReadWriteMany) that every step and worker mounts, and where."""

USER = 1000
"""User and group of every step and worker, so that each can read and write what the others left on the volume."""

LAUNCHERS = {"local": "", "pytorchjob": "PyTorchJob", "trainjob": "TrainJob"}
"""What starts a training: torchrun in the step itself, or a job of this kind."""

IMAGE = f"citeflow-train:{__version__}-python3.11"
"""Image of a worker; it holds citeflow with its extra `train`."""

IMAGE_VARIABLE = "CITEFLOW_TRAIN_IMAGE"
"""Environment variable by which a pipeline names another; kfp.local would change a parameter that holds `python3`."""

MOST_WORKERS = 10_000
OWN_MOUNTS = ("/tmp", "/dev/shm")
_MOUNT = re.compile(r"/[^:]+")

UNITS = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSpec:
    """Pods that train together, and what each of them gets."""

    workers: int = 2
    """Number of pods."""

    image: str = IMAGE
    """Image of the pods, with its tag or digest."""

    image_pull_policy: str = "IfNotPresent"
    """Kubernetes' imagePullPolicy: IfNotPresent, Always or Never."""

    image_pull_secrets: tuple[str, ...] = ()
    """Names of secrets with the credentials of the image's registry."""

    cpu: str = "500m"
    """Cores of a pod, such as 2 or 500m; requested, and not exceeded."""

    memory: str = "2Gi"
    """Memory of a pod, shared memory included; requested, and not exceeded."""

    shared_memory: str = "512Mi"
    """Size of /dev/shm, which is taken from the pod's memory as it fills."""

    gpus: int = 0
    """GPUs of a pod, each with a process of its own; 0 trains on the CPU with one process."""

    gpu_resource: str = "nvidia.com/gpu"
    """Name of the GPUs as the cluster's device plugin gives it."""

    volumes: Mapping[str, str] = field(default_factory=lambda: {CLAIM: MOUNT})
    """Claims in the namespace, and the path where each is mounted."""

    node_selector: Mapping[str, str] = field(default_factory=dict)
    """Labels that a node must have."""

    tolerations: tuple[Mapping[str, Any], ...] = ()
    """Taints that the pods accept, as in a pod's spec."""

    queue: str = ""
    """Kueue's queue that the job waits in; empty starts it at once."""

    deadline_hours: float = 24.0
    """Longest time that the job may run."""

    keep_hours: float = 24.0
    """How long the job and its pods' logs are kept after its end."""

    restarts: int = 10
    """How often the processes may be started again within a pod, and as often the pods, before the job has failed."""

    runtime: str = "torch-distributed"
    """The ClusterTrainingRuntime of a TrainJob; a PyTorchJob has none."""

    def __post_init__(self) -> None:
        _require(1 <= self.workers <= MOST_WORKERS, "workers", self.workers, f"1 to {MOST_WORKERS}")
        _require(self.gpus >= 0, "gpus", self.gpus, "0 or more")
        name = self.image.rpartition("/")[2]
        has_version = "@" in name or (":" in name and not name.endswith(":latest"))
        _require(
            has_version,
            "image",
            self.image,
            "the name of an image with its version or digest, not :latest",
        )
        policies = ("IfNotPresent", "Always", "Never")
        _require(
            self.image_pull_policy in policies,
            "image_pull_policy",
            self.image_pull_policy,
            ", ".join(policies),
        )
        for name in ("cpu", "memory", "shared_memory"):
            _require(
                quantity(getattr(self, name)) > 0,
                name,
                getattr(self, name),
                "a quantity such as 2 or 8Gi",
            )
        most = quantity(self.memory)
        _require(not self.cpu.endswith("i"), "cpu", self.cpu, "cores such as 2 or 500m")
        room = f"at most job.memory, which is {self.memory}"
        _require(quantity(self.shared_memory) <= most, "shared_memory", self.shared_memory, room)
        places = list(self.volumes.values())
        fits = all(_MOUNT.fullmatch(path) and path not in OWN_MOUNTS for path in places)
        _require(
            fits and len(set(places)) == len(places),
            "volumes",
            dict(self.volumes),
            "claim: /path, each once",
        )
        _require(
            0 < self.deadline_hours <= 24 * 365,
            "deadline_hours",
            self.deadline_hours,
            "above 0, at most a year",
        )
        _require(0 <= self.keep_hours <= 24 * 365, "keep_hours", self.keep_hours, "0 to a year")
        _require(self.restarts >= 0, "restarts", self.restarts, "0 or more")

    @property
    def processes(self) -> int:
        """Processes of a pod."""
        return max(1, self.gpus)

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self.workers * self.processes


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A training that a cluster shall do."""

    kind: str
    """PyTorchJob or TrainJob."""

    spec: JobSpec
    run_id: str
    """Id of the pipeline run."""

    namespace: str = ""
    """Where the job is created; that of this pod, or of the kubeconfig, if empty."""


def from_yaml(text: str, **defaults: Any) -> JobSpec:
    """Read the settings of a job from YAML text; what it leaves out is taken from `defaults`.

    Raises:
        ConfigError: a name is unknown (the nearest right one is in the hint), or a value does not fit.
    """
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError("job is not YAML", str(error).splitlines()[0]) from None
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ConfigError(
            "job must hold keys and values",
            type(values).__name__,
            hint='such as "{cpu: 4, memory: 16Gi}"',
        )
    hints = typing.get_type_hints(JobSpec)
    for key in values:
        if key not in hints:
            raise ConfigError("unknown setting", f"job.{key}", hint=nearest(str(key), hints))
    given = {
        key: _convert(key, value, hints[key]) for key, value in values.items() if value is not None
    }
    return JobSpec(**{**defaults, **given})


def to_yaml(spec: JobSpec) -> str:
    """All settings as YAML text; `from_yaml` gives them back."""
    values = {name: _plain(value) for name, value in dataclasses.asdict(spec).items()}
    return yaml.safe_dump(values, sort_keys=False)


def quantity(text: str) -> float:
    """A Kubernetes quantity such as 500m or 8Gi as a number; 0 where it is none."""
    match = _QUANTITY.fullmatch(text)
    return float(match[1]) * UNITS[match[2] or ""] if match else 0.0


def check_mounted(spec: JobSpec, folder: Path) -> None:
    """Find out whether the pods see a folder at the same path as this process.

    Raises:
        ConfigError: no volume of theirs is mounted above it.
    """
    if not any(folder.is_relative_to(path) for path in spec.volumes.values()):
        mounted = ", ".join(spec.volumes.values())
        hint = f"a --data-root below {mounted}" if mounted else "job.volumes names no volume"
        raise ConfigError("the pods of a job do not see the folder", folder, hint=hint)


def _convert(key: str, value: object, kind: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is Mapping:
        _require(isinstance(value, Mapping), key, value, "keys and values")
        return {
            str(name): str(entry) for name, entry in typing.cast(Mapping[Any, Any], value).items()
        }
    if origin is tuple:
        entry_kind = typing.get_args(kind)[0]
        wanted = str if entry_kind is str else Mapping
        fits = isinstance(value, (list, tuple)) and all(
            isinstance(entry, wanted) for entry in value
        )
        _require(
            fits, key, value, "a list of names" if wanted is str else "a list of keys and values"
        )
        return tuple(typing.cast(list[Any], value))
    _require(kind is not str or not isinstance(value, (Mapping, list, bool)), key, value, "a text")
    return convert(f"job.{key}", value, kind)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    if not holds:
        raise ConfigError(f"job.{name}", value, hint=f"must be {wanted}")
