"""Which job of which run, and whose it is."""

from dataclasses import dataclass

from citeflow.files import sha256_of_json

RUN_ID = "pipeline/runid"
"""The label with the id of a run, as Kubeflow Pipelines has it."""

LONGEST_NAME = 63 - len("-node-0-9999-abcde")
"""Pods and services are named after their job, by at most 63 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The pod of the pipeline step that started a job; when it is deleted, the job goes with it."""

    name: str
    uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JobIdentity:
    """Which job of which run."""

    namespace: str
    run_id: str
    run_name: str
    job_file: str
    """What to train, as the pods find it on the volume."""

    task_sha256: str = ""
    """Digest of what that file says, so that the same name with other settings is another job."""

    owner: Owner | None = None

    @property
    def name(self) -> str:
        """Name of the job: that of the folder it writes to, so that there is never a second job for it."""
        tail = sha256_of_json(self.job_file)[:10]
        stem = f"citeflow-{self.run_name}"[: LONGEST_NAME - len(tail) - 1].strip("-")
        return f"{stem}-{tail}"


def labels(place: JobIdentity) -> dict[str, str]:
    """What an object of a run is found by."""
    parts = {"part-of": "citeflow", "component": "train", "managed-by": "citeflow"}
    return {
        **{f"app.kubernetes.io/{name}": value for name, value in parts.items()},
        RUN_ID: place.run_id,
    }
