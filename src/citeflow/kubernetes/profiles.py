"""The environments of users on a cluster: made, resized, measured, suspended and removed.

Everything may be repeated: what is there already is left as it is, or changed to what is wanted.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from citeflow.errors import ConfigError, UnavailableError
from citeflow.files import sha256_of_json
from citeflow.kubernetes import environment_objects as render
from citeflow.kubernetes import objects
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.environment_objects import (
    CLAIM_KIND,
    ENVIRONMENT,
    JOB,
    LABELS,
    NAMESPACE,
    OWNER,
    PROFILE,
    PROFILE_QUOTA,
    QUEUE,
    QUOTA,
    EnvironmentSettings,
    Size,
    Tenant,
)
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import CLAIM, LABEL_LENGTH, quantity
from citeflow.kubernetes.job_status import KubeObject
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.objects import Kind
from citeflow.kubernetes.rbac import PolicyRule
from citeflow.utils.logging import log

SUSPENDED = "citeflow.org/suspended"
"""Annotation with the time since when an environment, or a job, is suspended by the platform."""

CONTROLLER_S = 30.0
"""Longest wait for Kubeflow's controller, which makes the namespace of a Profile, and for the
rights in a new namespace to be known to the API server."""

LOOK_S = 0.5

QUEUE_VERSIONS = ("v1beta2", "v1beta1")

OURS = ",".join(f"{key}={value}" for key, value in LABELS.items())


@dataclass(frozen=True, kw_only=True, slots=True)
class Amounts:
    """Amounts of a cluster, as quotas count them."""

    cores: int
    memory: int
    """Bytes."""

    disk: int
    """Bytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The standing of an environment, and the use of its quota."""

    state: Literal["absent", "preparing", "ready", "suspended"]
    detail: str = ""
    quota: Amounts | None = None
    used: Amounts | None = None
    """By the quota's own count; None as long as there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Environments:
    """The environments of a cluster; `client` is that of the platform, in its own namespace."""

    client: KubeClient
    settings: EnvironmentSettings = dataclasses.field(default_factory=EnvironmentSettings)

    def namespace(self, user: str) -> str:
        """Return the name of a user's namespace."""
        prefix = self.settings.prefix
        if len(prefix) + len(user) <= LABEL_LENGTH:
            return f"{prefix}{user}"
        digest = sha256_of_json(user)[:10]
        return f"{prefix}{user}"[: LABEL_LENGTH - len(digest) - 1].rstrip("-") + f"-{digest}"

    def client_of(self, user: str) -> KubeClient:
        """Return a client in the namespace of a user."""
        return dataclasses.replace(self.client, namespace=self.namespace(user))

    @property
    def has_profiles(self) -> bool:
        """Tell whether the cluster has Kubeflow's Profiles."""
        return objects.is_served(self.client, PROFILE)

    def ensure(self, user: str, size: Size) -> None:
        """Make the environment of a user, or change its size.

        Raises:
            ConfigError: the namespace belongs to something else, or the cluster refuses.
            UnavailableError: Kubeflow has not made the namespace in time.
        """
        tenant = self._tenant(user)
        client = self.client_of(user)
        is_profile = self.has_profiles
        self._check_owner(tenant)
        if is_profile:
            objects.apply(self.client, PROFILE, render.profile(tenant, size, self.settings))
            self._await(lambda: self._namespace(tenant) is not None, tenant.namespace)
        else:
            objects.apply(self.client, NAMESPACE, render.namespace(tenant))
        objects.apply(client, render.BINDING, render.platform_binding(tenant))
        self._await(lambda: client.is_allowed(CREATES_CLAIMS, "create"), tenant.namespace)
        if is_profile:
            for binding in render.profile_bindings(tenant):
                objects.apply(client, render.BINDING, binding)
        else:
            objects.apply(client, QUOTA, render.quota(tenant, size))
        objects.apply(client, render.LIMITS, render.limits(tenant))
        for policy in render.policies(tenant, is_profile=is_profile):
            objects.apply(client, render.POLICY, policy)
        _ensure_claim(client, render.claim(tenant, size, self.settings))
        objects.create(client, JOB, render.volume_job(tenant, self.settings))
        if queue := self.queue_kind():
            objects.apply(client, queue, render.queue(tenant, self.settings))
        log("environment", "is there", of=user, namespace=tenant.namespace)

    def standing(self, user: str) -> Standing:
        """Return how the environment of a user stands, with the use of its quota.

        Raises:
            ConfigError: the namespace belongs to something else.
        """
        tenant = self._tenant(user)
        found = self._namespace(tenant)
        if found is None or "deletionTimestamp" in found["metadata"]:
            detail = "it is being deleted" if found else ""
            return Standing(state="preparing" if found else "absent", detail=detail)
        client = self.client_of(user)
        quotas = (objects.get(client, QUOTA, name) for name in (ENVIRONMENT, PROFILE_QUOTA))
        quota = next(filter(None, quotas), {})
        claim = objects.get(client, CLAIM_KIND, CLAIM)
        standing = Standing(
            state="ready",
            quota=_amounts(quota.get("spec", {}).get("hard")),
            used=_amounts(quota.get("status", {}).get("used")),
        )
        if since := _annotations(found).get(SUSPENDED):
            return dataclasses.replace(standing, state="suspended", detail=f"since {since}")
        phase = (claim or {}).get("status", {}).get("phase", "absent")
        if phase != "Bound":
            detail = f"its volume is {phase.lower()}"
            return dataclasses.replace(standing, state="preparing", detail=detail)
        if standing.used is None:
            detail = "its quota is not counted yet"
            return dataclasses.replace(standing, state="preparing", detail=detail)
        return standing

    def remove(self, user: str, *, force: bool = False) -> bool:
        """Delete the environment of a user with all that is in it; return False if there is none.

        Raises:
            ConfigError: runs are at work in it, and `force` is not given.
        """
        tenant = self._tenant(user)
        if self._namespace(tenant) is None:
            return False
        live = [] if force else list(self.live(user))
        if live:
            hint = "cancel them first, or use --force"
            raise ConfigError("runs are at work in the environment", ", ".join(live), hint=hint)
        kind = PROFILE if self.has_profiles else NAMESPACE
        return objects.delete(self.client, kind, tenant.namespace)

    def live(self, user: str) -> Iterator[str]:
        """Yield the jobs and pods of a user's runs that have not ended."""
        client = self.client_of(user)
        for job in objects.list_all(client, JOB, OURS):
            if not ended(job) and job["metadata"]["name"] != "citeflow-volume":
                yield f"Job/{job['metadata']['name']}"
        for launcher in LAUNCHERS.values():
            for each in client.jobs(launcher):
                if each.end is None:
                    yield f"{launcher.kind}/{each.name}"
        for pod in client.pods("app.kubernetes.io/part-of=citeflow"):
            if RUN_ID in pod.labels and not pod.has_ended:
                yield f"Pod/{pod.name}"

    def suspend(self, user: str) -> None:
        """Let nothing of a user run until `wake`: jobs save a checkpoint, end their pods and wait.

        Jobs in a queue of Kueue go back to it. A step of a pipeline that is at work ends what it
        does. Environments are not suspended for being idle: one without runs has no pods, and takes
        nothing but its volume.
        """
        client = self.client_of(user)
        self._mark(user, datetime.now(UTC).isoformat(timespec="seconds"))
        if queue := self.queue_kind():
            objects.patch(client, queue, ENVIRONMENT, {"spec": {"stopPolicy": "HoldAndDrain"}})
        for kind, job in self._jobs(client):
            if not ended(job) and not is_queued(job):
                _set_suspended(client, kind, job, True)

    def wake(self, user: str) -> None:
        """Take a suspension back: the jobs that it ended go on from their checkpoints."""
        if SUSPENDED not in _annotations(self._namespace(self._tenant(user)) or {}):
            return
        client = self.client_of(user)
        for kind, job in self._jobs(client):
            if SUSPENDED in _annotations(job):
                _set_suspended(client, kind, job, False)
        if queue := self.queue_kind():
            objects.patch(client, queue, ENVIRONMENT, {"spec": {"stopPolicy": "None"}})
        self._mark(user, None)

    def queue_kind(self) -> Kind | None:
        """Return Kueue's LocalQueue; None where there is no Kueue, or no queue is configured."""
        if not self.settings.cluster_queue:
            return None
        for version in QUEUE_VERSIONS:
            kind = dataclasses.replace(QUEUE, version=version)
            if objects.is_served(self.client, kind):
                return kind
        return None

    def _jobs(self, client: KubeClient) -> Iterator[tuple[Kind, KubeObject]]:
        kinds = [JOB]
        for launcher in LAUNCHERS.values():
            kinds.append(
                Kind(
                    name=launcher.kind,
                    plural=launcher.plural,
                    group=launcher.group,
                    version=launcher.version,
                )
            )
        for kind in kinds:
            yield from ((kind, job) for job in objects.list_all(client, kind, OURS))

    def _mark(self, user: str, since: str | None) -> None:
        change = {"metadata": {"annotations": {SUSPENDED: since}}}
        objects.patch(self.client, NAMESPACE, self.namespace(user), change)

    def _tenant(self, user: str) -> Tenant:
        return Tenant(user=user, namespace=self.namespace(user), platform=self.client.namespace)

    def _namespace(self, tenant: Tenant) -> KubeObject | None:
        return objects.get(self.client, NAMESPACE, tenant.namespace)

    def _check_owner(self, tenant: Tenant) -> None:
        """Check that a namespace or Profile of this name, if there is one, is the user's.

        Raises:
            ConfigError: it is another's.
            UnavailableError: it is being deleted.
        """
        kind = PROFILE if self.has_profiles else NAMESPACE
        found = objects.get(self.client, kind, tenant.namespace)
        if found is None and kind is PROFILE:
            found = self._namespace(tenant)
        if found is None:
            return
        if "deletionTimestamp" in found["metadata"]:
            hint = "try again in a minute"
            raise UnavailableError("is being deleted", tenant.namespace, hint=hint)
        if _annotations(found).get(OWNER) != tenant.user:
            hint = "another prefix in the settings of the platform"
            raise ConfigError("there is another namespace", tenant.namespace, hint=hint)

    def _await(self, is_there: Callable[[], bool], name: str) -> None:
        until = time.monotonic() + CONTROLLER_S
        while not is_there():
            if time.monotonic() > until:
                hint = "is Kubeflow's profile controller at work, and the platform's role there?"
                raise UnavailableError("the namespace is not ready", name, hint=hint)
            self.client.sleep(LOOK_S)


CREATES_CLAIMS = PolicyRule(group="", resource=CLAIM_KIND.plural, verbs=("create",))


def ended(job: KubeObject) -> bool:
    """Tell whether a job of any kind has ended."""
    conditions = job.get("status", {}).get("conditions") or []
    return any(
        each["type"] in ("Complete", "Succeeded", "Failed") and each["status"] == "True"
        for each in conditions
    )


def is_queued(job: KubeObject) -> bool:
    """Tell whether a job is held back, and started, by a queue of Kueue."""
    return "kueue.x-k8s.io/queue-name" in (job["metadata"].get("labels") or {})


def _ensure_claim(client: KubeClient, wanted: KubeObject) -> None:
    """Create the claim, or let it grow: no claim ever shrinks."""
    if objects.create(client, CLAIM_KIND, wanted):
        return
    found = objects.get(client, CLAIM_KIND, CLAIM) or {}
    asked = wanted["spec"]["resources"]["requests"]["storage"]
    if quantity(asked) > quantity(found["spec"]["resources"]["requests"]["storage"]):
        change = {"spec": {"resources": {"requests": {"storage": asked}}}}
        objects.patch(client, CLAIM_KIND, CLAIM, change)


def _set_suspended(client: KubeClient, kind: Kind, job: KubeObject, is_suspended: bool) -> None:
    launcher = next((each for each in LAUNCHERS.values() if each.kind == kind.name), None)
    change = launcher.suspension(is_suspended) if launcher else {"spec": {"suspend": is_suspended}}
    since = datetime.now(UTC).isoformat(timespec="seconds") if is_suspended else None
    name = job["metadata"]["name"]
    objects.patch(client, kind, name, {**change, "metadata": {"annotations": {SUSPENDED: since}}})


def _annotations(thing: KubeObject) -> Mapping[str, str]:
    return thing.get("metadata", {}).get("annotations") or {}


def _amounts(counted: Mapping[str, str] | None) -> Amounts | None:
    """Read the amounts of a quota, whole cores upwards; None where nothing is counted."""
    if not counted:
        return None
    return Amounts(
        cores=math.ceil(quantity(counted.get("requests.cpu", "0"))),
        memory=int(quantity(counted.get("requests.memory", "0"))),
        disk=int(quantity(counted.get("requests.storage", "0"))),
    )
