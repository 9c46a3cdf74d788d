"""A run as a run of Kubeflow Pipelines in the user's namespace, started as by `citeflow submit`.

Kubeflow Pipelines has no key by which it would refuse a run that it has already. So an attempt is
claimed by a Lease before it is submitted, and found again by an id in its description. Where a
claim is there and no run, somebody is submitting it or was killed: it is submitted again only when
the call can no longer be under way.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from citeflow.errors import CiteflowError, ConfigError, UnavailableError
from citeflow.files import sha256_of_json
from citeflow.kubeflow import connection
from citeflow.kubeflow.calls import TIMEOUT_S, UnansweredError
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.outcome import CANCELED, CANCELING, FAILED, SUCCEEDED, TERMINAL, run_error
from citeflow.kubeflow.submit import Package, RunOptions, SubmissionPlan, plan, submit
from citeflow.kubeflow.watch import RunPods
from citeflow.kubernetes import objects
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.environment_objects import ENVIRONMENT, LABELS
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import MOUNT
from citeflow.kubernetes.job_status import KubeObject, summarize
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.objects import Kind
from citeflow.kubernetes.profiles import Environments
from citeflow.kubernetes.reaper import delete_jobs_of_run
from citeflow.platform import preview
from citeflow.platform.backends.base import Phase, RunState, Submitted

LEASE = Kind(name="Lease", plural="leases", group="coordination.k8s.io")

CANCELLED = "citeflow.org/cancelled"
"""Annotation of the Lease of an attempt that was asked to stop: the server calls it failed."""

UNDER_WAY_S = 2 * TIMEOUT_S[1]
"""Time after a claim in which the call that creates the run may still be carried out."""

PHASES: Mapping[str, Phase] = {
    SUCCEEDED: "succeeded",
    FAILED: "failed",
    CANCELED: "stopped",
    "SKIPPED": "stopped",
    "PENDING": "pending",
    "PAUSED": "pending",
}
"""Phases of states of the server; all others are `running`."""


@dataclass(frozen=True, slots=True)
class PipelineRuns:
    """The runs of all users, on a server of Kubeflow Pipelines that has users."""

    environments: Environments
    host: str
    train_image: str
    _servers: dict[str, KfpClient] = field(default_factory=dict)
    """Connections by user, kept to save the sign-in; made again where they are not there."""
    _ids: dict[tuple[str, int], str] = field(default_factory=dict)
    """Ids on the server by run and attempt, kept to save looking for them."""

    def start(self, run: Submitted, dataset: str, settings: str) -> None:
        """Submit an attempt, unless it is on the server.

        Raises:
            UnavailableError: the server does not answer, or somebody else is submitting it.
        """
        server = self._server(run)
        if server.find_run(run.name, key(run)):
            return
        self._claim(run)
        try:
            submit(server, self.plan(run, dataset), key=key(run))
        except UnansweredError:
            raise
        except CiteflowError:
            objects.delete(self._client(run), LEASE, lease_name(run))  # it was not carried out
            raise

    def state(self, run: Submitted) -> RunState:
        """Return how the attempt stands on the server, and why its pods wait or have failed."""
        server = self._server(run)
        found = server.find_run(run.name, key(run))
        if found is None:
            return RunState(phase="absent")
        phase = PHASES.get(found.state, "running")
        cluster = self._client(run)
        detail = ""
        if phase == "running":
            detail = (
                "it is being stopped" if found.state == CANCELING else _troubles(cluster, found)
            )
        elif phase == "failed" and self._is_cancelled(run):
            phase = "stopped"
        elif phase == "failed":
            pods = RunPods(run_id=found.run_id, cluster=cluster)
            error = run_error(found, server.failed_stages(found.run_id), pods.error)
            detail = f"{error.what}: {error.value}" if error and error.value else str(error or "")
        is_over = found.state in TERMINAL
        if is_over and phase != "succeeded":
            delete_jobs_of_run(cluster, found.run_id)  # which a step may have created meanwhile
        return RunState(
            phase=phase,
            detail=detail,
            started=found.created_at,
            ended=found.finished_at if is_over else None,
        )

    def cancel(self, run: Submitted) -> None:
        """Ask the server to end the attempt, and delete its jobs: that ends their pods."""
        server = self._server(run)
        found = server.find_run(run.name, key(run))
        if found is None or found.state in TERMINAL:
            return
        client = self._client(run)
        if not self._is_cancelled(run):
            lease = self._lease(run)
            lease["metadata"]["annotations"] = {CANCELLED: "true"}
            objects.apply(client, LEASE, lease)
        if found.state != CANCELING:
            server.terminate_run(found.run_id)
        delete_jobs_of_run(client, found.run_id)

    def delete(self, run: Submitted) -> None:
        """Delete all attempts of a run from the server."""
        server = self._server(run)
        client = self._client(run)
        for number in range(1, run.attempt + 1):
            attempt = dataclasses.replace(run, attempt=number)
            found = server.find_run(run.name, key(attempt))
            if found:
                server.archive_run(found.run_id)
                server.delete_run(found.run_id)
            objects.delete(client, LEASE, lease_name(attempt))

    def log_id(self, run: Submitted) -> str:
        """Return the id of the attempt on the server; empty where it is not there."""
        attempt = (run.id, run.attempt)
        if attempt not in self._ids:
            found = self._server(run).find_run(run.name, key(run))
            if found is None:
                return ""
            self._ids[attempt] = str(found.run_id)
        return self._ids[attempt]

    def code_problem(self) -> str:
        """Say that nothing starts jobs on the cluster: a step of a pipeline runs no code itself."""
        client = self.environments.client
        if any(client.serves(launcher) for launcher in LAUNCHERS.values()):
            return ""
        return f"the cluster has no {' or '.join(each.kind for each in LAUNCHERS.values())}"

    def render(self, run: Submitted, dataset: str, settings: str) -> str:
        """Return the job that the step which trains will launch, where the cluster has its kind."""
        namespace = self.environments.namespace(run.user)
        return preview.render(run, Path(MOUNT), job=self._job(run), namespace=namespace)

    def plan(self, run: Submitted, dataset: str) -> SubmissionPlan:
        """Settle the pipeline and its parameters, as `citeflow submit` does.

        Raises:
            ConfigError: one of them is wrong.
        """
        return plan(
            {
                "dataset": dataset,
                "settings": run.settings,
                "workers": run.workers,
                "run_name": run.name,
                "job": self._job(run),
            },
            Package(
                pipeline=run.task,
                step_image=self.environments.settings.image,
            ),
            RunOptions(experiment="citeflow", run_name=run.name),
        )

    def _job(self, run: Submitted) -> str:
        """Return the settings of the job as YAML: one core a worker or more, and the queue."""
        job = {"cpu": str(max(1, run.cores // run.workers)), "image": self.train_image}
        if self.environments.queue_kind():
            job["queue"] = ENVIRONMENT
        return yaml.safe_dump(job)

    def _claim(self, run: Submitted) -> None:
        """Note that the attempt is being submitted.

        Raises:
            UnavailableError: somebody has noted it, and may still be at it.
        """
        client = self._client(run)
        if objects.create(client, LEASE, self._lease(run)):
            return
        found = objects.get(client, LEASE, lease_name(run)) or self._lease(run)
        since = datetime.fromisoformat(found["spec"]["renewTime"])
        hint = "it is looked for again"
        if datetime.now(UTC) - since < timedelta(seconds=UNDER_WAY_S):
            raise UnavailableError("the run is being submitted", run.name, hint=hint)
        lease = self._lease(run)
        lease["metadata"]["resourceVersion"] = found["metadata"].get("resourceVersion")
        try:
            objects.patch(client, LEASE, lease_name(run), lease)
        except ConfigError:
            raise UnavailableError("the run is being submitted", run.name, hint=hint) from None

    def _lease(self, run: Submitted) -> KubeObject:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lease = LEASE.object(lease_name(run), spec={"renewTime": now})
        lease["metadata"]["labels"] = {**LABELS}
        return lease

    def _is_cancelled(self, run: Submitted) -> bool:
        lease = objects.get(self._client(run), LEASE, lease_name(run)) or {}
        return CANCELLED in (lease.get("metadata", {}).get("annotations") or {})

    def _client(self, run: Submitted) -> KubeClient:
        return self.environments.client_of(run.user)

    def _server(self, run: Submitted) -> KfpClient:
        if run.user not in self._servers:
            namespace = self.environments.namespace(run.user)
            server = connection.connect(host=self.host, namespace=namespace)
            if not server.namespace:
                hint = "leave `pipelines` empty: runs are Jobs then, each in its user's namespace"
                raise ConfigError("Kubeflow Pipelines has no users", self.host, hint=hint)
            self._servers[run.user] = server
        return self._servers[run.user]


def key(run: Submitted) -> str:
    """Return the id of an attempt, at the end of the description of its run."""
    return f"platform run {run.id} attempt {run.attempt}"


def lease_name(run: Submitted) -> str:
    """Name the Lease of an attempt."""
    return f"citeflow-{sha256_of_json(run.id)[:16]}-{run.attempt}"


def _troubles(cluster: KubeClient, found: Any) -> str:
    """Say why pods of a run do not run; empty where all do."""
    pods = cluster.pods(f"{RUN_ID}={found.run_id}")
    return summarize(waiting) if (waiting := [pod for pod in pods if pod.trouble]) else ""
