"""The resources that a training asks a cluster for: the parameter `job` of the pipelines."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from citeflow import __version__
from citeflow.errors import ConfigError
from citeflow.utils import records
from citeflow.utils.records import Float, Int, Record, Str

CLAIM = "citeflow-data"
"""The persistent volume claim (ReadWriteMany) that every step and worker mounts."""

MOUNT = "/mnt/citeflow"
"""Mount path of that claim."""

USER = 1000
"""User and group of every step and worker, so that each can read and write the volume's files."""

IMAGE = f"citeflow-train:{__version__}-python3.11"
"""Image of a worker; it holds citeflow with its extra `train`."""

IMAGE_VARIABLE = "CITEFLOW_TRAIN_IMAGE"
"""Environment variable by which a pipeline names another image.

It is no parameter, as kfp.local would rewrite the `python3` in the value.
"""

AUTO = "auto"
"""Memory that is estimated."""

MEMORY_MARGIN = 1.25
"""Memory of a pod over the estimate, which is right to about a fifth."""

GPU_HOST_BYTES = 4 * 2**30
"""Main memory that the libraries of a GPU take in each process; not measured."""

SMALL_MEMORY = "2Gi"
"""Memory of a pod of which nothing is known yet, as in the checks of `doctor`."""

MAX_WORKERS = 10_000
HOURS_OF_A_YEAR = 24 * 365

LABEL_LENGTH = 63
LABEL_RULE = (
    "at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends, no blanks"
)
NAME_LENGTH = 253
NAME_RULE = "small letters, digits, '-' and '.', with a letter or digit at both ends"

_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", re.ASCII)
_OWN_MOUNTS = ("/tmp", "/dev/shm")
_MOUNT_PATH = re.compile(r"/[^:]+")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,2}|[numkMGTPE]|[KMGTPE]i)?")


def quantity(text: str) -> Decimal:
    """Parse a Kubernetes quantity such as 500m, 8Gi or 1e3.

    Raises:
        ValueError: it is none.
    """
    from kubernetes.utils import parse_quantity  # absent where only the CLI's core is installed

    # parse_quantity takes blanks, underscores and NaN, which the API server refuses.
    if not _QUANTITY.fullmatch(text):
        raise ValueError("must be a quantity such as 2 or 8Gi")
    return Decimal(parse_quantity(text))


def format_bytes(amount: float) -> str:
    """Write an amount of memory as a quantity, rounded up to 64 MiB."""
    return f"{64 * math.ceil(amount / (64 * 2**20))}Mi"


def seconds(hours: float) -> int:
    """Convert hours to whole seconds, rounded up."""
    return math.ceil(3600 * hours)


def _check_quantity(text: str) -> str:
    if quantity(text) <= 0:
        raise ValueError("must be a quantity such as 2 or 8Gi")
    return text


def _check_memory(text: str) -> str:
    return text if text == AUTO else _check_quantity(text)


Quantity = Annotated[Str, AfterValidator(_check_quantity)]


def _check_label_value(text: str) -> str:
    if not _LABEL_VALUE.fullmatch(text) or len(text) > LABEL_LENGTH:
        raise ValueError(f"must be a label of Kubernetes: {LABEL_RULE}")
    return text


def _check_label_key(text: str) -> str:
    prefix, _, name = text.rpartition("/")
    if not name or (prefix and not _NAME.fullmatch(prefix)):
        raise ValueError("must be a key of Kubernetes, such as nvidia.com/gpu")
    return prefix + "/" * bool(prefix) + _check_label_value(name)


def _check_name(text: str) -> str:
    if not _NAME.fullmatch(text) or len(text) > NAME_LENGTH:
        raise ValueError(f"must be a name of Kubernetes: {NAME_RULE}")
    return text


LabelValue = Annotated[Str, AfterValidator(_check_label_value)]
LabelKey = Annotated[Str, AfterValidator(_check_label_key)]
Name = Annotated[Str, AfterValidator(_check_name)]


class JobSpec(Record):
    """Pods that train together, and the resources of each."""

    workers: Int = Field(2, ge=1, le=MAX_WORKERS)
    """Number of pods."""

    image: str = IMAGE
    """Image of the pods, with its tag or digest."""

    image_pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Kubernetes' imagePullPolicy."""

    image_pull_secrets: tuple[Name, ...] = ()
    """Names of secrets with the credentials of the image's registry."""

    cpu: Quantity = "500m"
    """Cores of a pod, such as 2 or 500m; requested, and not exceeded."""

    memory: Annotated[Str, AfterValidator(_check_memory)] = AUTO
    """Memory of a pod, shared memory included; requested, and not exceeded. `auto` takes an
    estimate from the graph and the settings."""

    shared_memory: Quantity = "512Mi"
    """Size of /dev/shm, which is taken from the pod's memory as it fills."""

    gpus: Int = Field(0, ge=0)
    """GPUs of a pod, each with a process of its own; 0 trains on the CPU with one process."""

    gpu_resource: LabelKey = "nvidia.com/gpu"
    """Name of the GPUs as the cluster's device plugin gives it."""

    volumes: dict[Name, str] = Field(default_factory=lambda: {CLAIM: MOUNT})
    """Claims in the namespace, and the path where each is mounted."""

    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that a node must have."""

    tolerations: tuple[dict[str, str | int], ...] = ()
    """Taints that the pods accept, as in a pod's spec."""

    queue: LabelValue = ""
    """Kueue's queue that the job waits in; empty starts it at once."""

    deadline_hours: Float = Field(24.0, gt=0, le=HOURS_OF_A_YEAR)
    """Longest time that the job may run."""

    keep_hours: Float = Field(24.0, ge=0, le=HOURS_OF_A_YEAR)
    """Longest time that an ended PyTorchJob is kept; it goes with its pipeline run before that."""

    unschedulable_minutes: Float = Field(10.0, gt=0, le=60 * HOURS_OF_A_YEAR)
    """Longest time that a job may lack its pods, or these a node or a quota: then the run ends, or
    begins again."""

    restarts: Int = Field(10, ge=0)
    """Limit of restarts of the processes within a pod, and on average of a pod's container."""

    priority_class: Str = "citeflow-worker"
    """The PriorityClass of the pods; empty for none. A TrainJob has that of its runtime."""

    runtime: Name = "citeflow"
    """The ClusterTrainingRuntime of a TrainJob; other jobs have none."""

    @field_validator("image")
    @classmethod
    def _is_versioned(cls, image: str) -> str:
        name = image.rpartition("/")[2]
        if "@" not in name and (":" not in name or name.endswith(":latest")):
            raise ValueError("must be an image with its version or digest, not :latest")
        return image

    @field_validator("cpu")
    @classmethod
    def _is_cores(cls, cpu: str) -> str:
        if cpu.endswith("i"):
            raise ValueError("must be cores such as 2 or 500m")
        return cpu

    @field_validator("volumes")
    @classmethod
    def _are_mount_paths(cls, volumes: dict[str, str]) -> dict[str, str]:
        paths = list(volumes.values())
        fits = all(_MOUNT_PATH.fullmatch(path) and path not in _OWN_MOUNTS for path in paths)
        if not fits or len(set(paths)) < len(paths):
            raise ValueError("must be claim: /path, each path once")
        return volumes

    @model_validator(mode="after")
    def _shared_memory_fits(self) -> "JobSpec":
        # The defaults fit, and are made where quantities can not be parsed.
        if self.memory == AUTO or not self.model_fields_set & {"memory", "shared_memory"}:
            return self
        if quantity(self.shared_memory) > quantity(self.memory):
            hint = f"must be at most job.memory, which is {self.memory}"
            raise ConfigError("job.shared_memory", self.shared_memory, hint=hint)
        return self

    @property
    def pod_memory(self) -> str:
        """Memory of a pod; one that is still to be estimated has that of a small graph."""
        return SMALL_MEMORY if self.memory == AUTO else self.memory

    def sized(self, needed: int) -> "JobSpec":
        """Return the job with its memory settled.

        Args:
            needed: estimate of what the processes of a pod use at their peak, in bytes.
        """
        if self.memory != AUTO:
            return self
        wanted = MEMORY_MARGIN * needed + self.gpus * GPU_HOST_BYTES
        memory = format_bytes(max(wanted, float(quantity(self.shared_memory))))
        return self.model_copy(update={"memory": memory})

    @property
    def processes(self) -> int:
        """Processes of a pod."""
        return max(1, self.gpus)

    @property
    def world_size(self) -> int:
        """Processes of the job."""
        return self.workers * self.processes

    @property
    def requests(self) -> dict[str, str]:
        """Resources of a pod, which are requested and not exceeded."""
        amounts = {"cpu": self.cpu, "memory": self.pod_memory}
        return {**amounts, self.gpu_resource: str(self.gpus)} if self.gpus else amounts

    @property
    def container_restarts(self) -> int:
        """Limit of the restarts of all pods' containers together, as operators count them.

        When one pod is lost, the containers of all others may start again.
        """
        return min(self.restarts * self.workers, 2**31 - 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A training that a cluster is asked for."""

    launcher: str
    """Key of LAUNCHERS."""

    spec: JobSpec
    run_id: str
    """Id of the pipeline run."""

    namespace: str = ""
    """Namespace of the job; that of this pod, or of the kubeconfig, if empty."""


def from_yaml(text: str, *, workers: int = 2, image: str = IMAGE) -> JobSpec:
    """Parse the settings of a job from YAML text.

    Args:
        text: keys and values; a value of null leaves the default.
        workers: number of pods, unless the text has it.
        image: image of the pods, unless the text has it.

    Raises:
        ConfigError: a name is unknown (the hint has the nearest), or a value does not fit.
    """
    values = records.parse_yaml(text, "job")
    given = {str(key): value for key, value in values.items() if value is not None}
    return records.load(JobSpec, {"workers": workers, "image": image, **given}, name="job")


def to_yaml(spec: JobSpec) -> str:
    """Write all settings as YAML text, which `from_yaml` reads back."""
    return yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False)


def check_mounted(spec: JobSpec, folder: Path) -> None:
    """Check that the pods see a folder at the same path as this process.

    Raises:
        ConfigError: no volume of theirs is mounted above it.
    """
    if not any(folder.is_relative_to(path) for path in spec.volumes.values()):
        mounted = ", ".join(spec.volumes.values())
        hint = f"a --data-root below {mounted}" if mounted else "job.volumes names no volume"
        raise ConfigError("the pods of a job do not see the folder", folder, hint=hint)
