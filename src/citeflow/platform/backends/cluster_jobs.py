"""A run as one Job in the user's namespace: a pod that does the whole pipeline.

That is for clusters without a Kubeflow Pipelines that has users. The workers are processes of the
pod, as in `citeflow run` on one machine; a pod that is lost is made again, and goes on from its
checkpoint. The Job stays as the record of the attempt until the run is deleted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import yaml

from citeflow import own_model
from citeflow.files import sha256_of_json
from citeflow.kubernetes import objects
from citeflow.kubernetes import pod_template as pods
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.environment_objects import ENVIRONMENT, JOB, LABELS
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import MOUNT, JobSpec, format_bytes, seconds
from citeflow.kubernetes.job_status import KubeObject, PodStatus, summarize
from citeflow.kubernetes.launchers.base import to_plain
from citeflow.kubernetes.profiles import Environments, is_queued
from citeflow.kubernetes.reaper import STEP_CONTAINER
from citeflow.platform.backends.base import RunState, Submitted
from citeflow.tasks import load_settings
from citeflow.training.sandbox import TRUST_VARIABLE
from citeflow.utils.progress import LINE_EVERY_VARIABLE

CANCELLED = "citeflow.org/cancelled"
"""Annotation of a Job that was asked to stop."""

STAGE = "run"
RESTARTS = 5
"""Pods that are made again after one was killed."""

WORTH_ANOTHER = (69, 137, 143)
"""Exit codes after which another pod may go on: something did not answer, SIGKILL, SIGTERM."""

LINE_EVERY_S = 5
"""Seconds between two lines of progress, which the page reads."""

LEAST_MEMORY = 2 * 2**30
DEADLINE_HOURS = 7 * 24.0

_ERROR = re.compile(r"^error: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class JobRuns:
    """The runs of all users, as Jobs."""

    environments: Environments

    def start(self, run: Submitted, dataset: str, settings: str) -> None:
        """Create the Job of an attempt, unless it is there: its name says which attempt it is."""
        objects.create(self._client(run), JOB, self.job(run, dataset, settings))

    def state(self, run: Submitted) -> RunState:
        """Return how the Job of an attempt stands."""
        client = self._client(run)
        job = objects.get(client, JOB, job_name(run))
        if job is None:
            return RunState(phase="absent")
        status = job.get("status", {})
        started = _time(status.get("startTime"))
        done, failed = _condition(job, "Complete"), _condition(job, "Failed")
        if done:
            ended = _time(status.get("completionTime"))
            return RunState(phase="succeeded", started=started, ended=ended)
        if failed and CANCELLED in (job["metadata"].get("annotations") or {}):
            ended = _time(failed.get("lastTransitionTime"))
            return RunState(phase="stopped", started=started, ended=ended)
        members = client.pods(f"{RUN_ID}={log_id(run)}")
        if failed:
            ended = _time(failed.get("lastTransitionTime"))
            detail = _failure(members) or str(failed.get("message", ""))
            return RunState(phase="failed", detail=detail, started=started, ended=ended)
        if job["spec"].get("suspend"):
            detail = "it waits in its queue" if is_queued(job) else "the environment is suspended"
            return RunState(phase="pending", detail=detail)
        alive = [pod for pod in members if not pod.has_ended]
        if any(pod.has_started for pod in alive):
            return RunState(phase="running", started=started)
        return RunState(phase="pending", detail=summarize(alive), started=started)

    def cancel(self, run: Submitted) -> None:
        """Let the Job end: its pod gets SIGTERM, and time to save a checkpoint."""
        client = self._client(run)
        job = objects.get(client, JOB, job_name(run))
        if job is None or _condition(job, "Complete") or _condition(job, "Failed"):
            return
        if job["spec"].get("suspend"):
            objects.delete(client, JOB, job_name(run))  # its deadline does not count: no pod runs
        elif CANCELLED not in (job["metadata"].get("annotations") or {}):
            change = {
                "metadata": {"annotations": {CANCELLED: "true"}},
                "spec": {"activeDeadlineSeconds": 1},
            }
            objects.patch(client, JOB, job_name(run), change)

    def delete(self, run: Submitted) -> None:
        """Delete the Jobs of all attempts of a run, with their pods."""
        client = self._client(run)
        for job in objects.list_all(client, JOB, f"{RUN_ID}={log_id(run)}"):
            objects.delete(client, JOB, job["metadata"]["name"])

    def log_id(self, run: Submitted) -> str:
        """Return the label of the pods of all attempts."""
        return log_id(run)

    def code_problem(self) -> str:
        """Return "": the pod of a run is its user's own, and has no rights."""
        return ""

    def render(self, run: Submitted, dataset: str, settings: str) -> str:
        """Return the Job of an attempt as YAML."""
        return yaml.safe_dump(self.job(run, dataset, settings), sort_keys=False)

    def job(self, run: Submitted, dataset: str, settings: str) -> KubeObject:
        """Render the Job of an attempt.

        Args:
            run: the run.
            dataset: its dataset, as the pod sees it.
            settings: file with its settings, as the pod sees it.
        """
        spec = JobSpec(
            workers=1,
            image=self.environments.settings.image,
            cpu=str(run.cores),
            memory=format_bytes(max(LEAST_MEMORY, 1.25 * run.memory)),
            priority_class="",
        )
        labels = {**LABELS, "app.kubernetes.io/component": STAGE, RUN_ID: log_id(run)}
        is_queue = self.environments.queue_kind() is not None
        queue = {"kueue.x-k8s.io/queue-name": ENVIRONMENT} if is_queue else {}
        job = JOB.object(
            job_name(run),
            spec={
                "activeDeadlineSeconds": seconds(DEADLINE_HOURS),
                "backoffLimit": RESTARTS,
                "podFailurePolicy": {"rules": _rules()},
                "template": {
                    "metadata": {
                        "labels": {**labels, **pods.NO_SIDECAR},
                        "annotations": dict(pods.NO_SIDECAR),
                    },
                    "spec": self._pod(spec, run, dataset, settings),
                },
            },
        )
        annotations = {"citeflow.org/run": run.name, "citeflow.org/attempt": str(run.attempt)}
        job["metadata"] |= {"labels": {**labels, **queue}, "annotations": annotations}
        return job

    def _pod(self, spec: JobSpec, run: Submitted, dataset: str, settings: str) -> KubeObject:
        pod = pods.pod_spec(spec)
        pod.restart_policy = "Never"
        variables = {LINE_EVERY_VARIABLE: str(LINE_EVERY_S)}
        if own_model.has_code(load_settings(run.task, text=run.settings)):
            variables[TRUST_VARIABLE] = "1"  # the pod is what confines it
        environment = [{"name": name, "value": value} for name, value in variables.items()]
        pod.containers = [
            {
                "name": STEP_CONTAINER,
                "image": spec.image,
                "imagePullPolicy": spec.image_pull_policy,
                "command": ["python3", "-m", "citeflow", "run"],
                "args": [
                    f"--run-name={run.name}",
                    f"--data-root={MOUNT}",
                    f"--dataset={dataset}",
                    f"--workers={run.workers}",
                    f"--config={settings}",
                ],
                "env": [*pods.environment(spec), *environment],
                "resources": pods.resources(spec),
                "volumeMounts": pods.volume_mounts(spec),
                "securityContext": pods.container_security_context(),
                "terminationMessagePolicy": "FallbackToLogsOnError",
            }
        ]
        rendered: KubeObject = to_plain(pod)  # type: ignore[assignment]
        return rendered

    def _client(self, run: Submitted) -> KubeClient:
        return self.environments.client_of(run.user)


def job_name(run: Submitted) -> str:
    """Name the Job of an attempt, in few enough characters for its pods."""
    return f"citeflow-{run.name[:24].strip('-')}-{log_id(run)}-{run.attempt}"


def log_id(run: Submitted) -> str:
    """Return the id of a run as a label."""
    return sha256_of_json(run.id)[:16]


def _rules() -> list[KubeObject]:
    """Return which ends of a pod do not count, and which are final."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": STEP_CONTAINER,
                "operator": "NotIn",
                "values": list(WORTH_ANOTHER),
            },
        },
    ]


def _condition(job: KubeObject, kind: str) -> KubeObject | None:
    conditions: Sequence[KubeObject] = job.get("status", {}).get("conditions") or []
    true = (each for each in conditions if each["type"] == kind and each["status"] == "True")
    return next(true, None)


def _failure(members: Sequence[PodStatus]) -> str:
    """Return the error that the last pod to end has printed, or why the cluster ended it."""
    last = max((pod for pod in members if pod.has_ended), key=lambda pod: pod.created, default=None)
    if last is None:
        return ""
    ends = [each.end for each in last.containers if each.end and each.end.exit_code]
    errors = [error for end in ends for error in _ERROR.findall(end.message)]
    return errors[-1] if errors else last.trouble or f"exit code {ends[0]}" if ends else ""


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
