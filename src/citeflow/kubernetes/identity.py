"""The identity of a job: its name, its labels, and the pod that owns it."""

from dataclasses import dataclass

from citeflow.files import sha256_of_json

RUN_ID = "pipeline/runid"
"""Label with the id of a run, as Kubeflow Pipelines sets it."""

MAX_NAME = 63 - len("-node-0-9999-abcde")
"""Pods and services are named after their job, in at most 63 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The pod of the pipeline step that started a job; Kubernetes deletes the job with it."""

    name: str
    uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class JobIdentity:
    """The run that a job belongs to, and the task that its pods read."""

    namespace: str
    run_id: str
    run_name: str
    job_file: str
    """Path of the task on the volume of the pods."""

    task_sha256: str = ""
    """Digest of the task, so that the same name with other settings is another job."""

    owner: Owner | None = None

    @property
    def name(self) -> str:
        """Name of the job, derived from the folder it writes to: a folder never has two jobs."""
        digest = sha256_of_json(self.job_file)[:10]
        stem = f"citeflow-{self.run_name}"[: MAX_NAME - len(digest) - 1].strip("-")
        return f"{stem}-{digest}"

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the job and of its pods."""
        return {
            "app.kubernetes.io/part-of": "citeflow",
            "app.kubernetes.io/component": "train",
            "app.kubernetes.io/managed-by": "citeflow",
            RUN_ID: self.run_id,
        }
