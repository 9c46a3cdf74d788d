"""Check a Kubernetes cluster, with the rights of its user."""

import contextlib
import datetime
from collections.abc import Iterator
from dataclasses import replace

from kubernetes import client as k8s

from citeflow.doctor import Finding, expect, kfp_cluster, kuberay, rbac, runtimes
from citeflow.doctor.kube_client import Check, Cluster, run_check
from citeflow.kubeflow.pipeline_spec import largest_limits
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes.client import CONNECTION_ERRORS, KubeClient
from citeflow.kubernetes.job_spec import CLAIM, JobSpec, quantity
from citeflow.kubernetes.launchers import LAUNCHERS, Launcher

REAPER = "citeflow-reaper"
RECENT_S = 600.0
"""Longest time since the last success of the reaper, which runs every minute."""

INSTALL = "kubectl apply -k manifests/overlays/..., as docs/cluster.md says"


def check(
    client: KubeClient, *, launcher: Launcher | None = None, service_account: str = ""
) -> Iterator[Finding]:
    """Run all checks, unless the server does not answer at all.

    Args:
        client: the cluster, in the namespace of the runs.
        launcher: kind of the job; None for the first that the cluster has.
        service_account: account that the steps run as; the user, if empty.
    """
    first_kind = next(iter(LAUNCHERS.values()))
    cluster = Cluster(
        client=client, launcher=launcher or first_kind, service_account=service_account
    )
    (first,) = run_check(cluster, "Kubernetes API", check_version)
    if first.status != "ok":
        yield replace(first, status="missing")
        return
    yield first
    if launcher is None:
        cluster = replace(cluster, launcher=_find_launcher(cluster) or first_kind)
    for what, each in CHECKS.items():
        yield from run_check(cluster, what, each)


def _find_launcher(cluster: Cluster) -> Launcher | None:
    """Return the first kind of job that the cluster has."""
    for each in LAUNCHERS.values():
        with contextlib.suppress(k8s.ApiException, *CONNECTION_ERRORS):
            if _custom_resource(cluster, each.group, each.version, each.plural, "").status == "ok":
                return each
    return None


def check_version(cluster: Cluster) -> Iterator[Finding]:
    """Check that the server answers."""
    version = cluster.read(k8s.VersionApi(cluster.client.api).get_code).git_version
    value = f"{version}, namespace {cluster.namespace}"
    yield Finding(status="ok", what="Kubernetes API", value=value)


def check_custom_resources(cluster: Cluster) -> Iterator[Finding]:
    """Check for the custom resources of other projects."""
    launcher = cluster.launcher
    group, version = launcher.group, launcher.version
    yield _custom_resource(cluster, group, version, launcher.plural, launcher.install_hint)
    hint = "install Kubeflow Pipelines 2.16 or newer"
    yield _custom_resource(cluster, "argoproj.io", "v1alpha1", "workflows", hint)
    group = "tensorboard.kubeflow.org"
    tensorboards = _custom_resource(cluster, group, "v1alpha1", "tensorboards", "")
    if tensorboards.status != "ok":
        value = "not there; only the overlay `kubeflow` needs it"
        tensorboards = Finding(status="note", what=tensorboards.what, value=value)
    yield tensorboards


def check_prerequisites(cluster: Cluster) -> Iterator[Finding]:
    """Check for the cluster-wide objects that a job refers to."""
    call = k8s.CustomObjectsApi(cluster.client.api).get_cluster_custom_object
    for needed in cluster.launcher.prerequisites(JobSpec()):
        found = cluster.read(call, needed.group, needed.version, needed.plural, needed.name)
        value = needed.name if found else f"no {needed.name}"
        yield expect(found is not None, needed.kind, value, needed.hint)


def _custom_resource(cluster: Cluster, group: str, version: str, plural: str, hint: str) -> Finding:
    call = k8s.CustomObjectsApi(cluster.client.api).get_api_resources
    known = cluster.read(call, group, version)
    names = [resource.name for resource in known.resources] if known else []
    is_there = plural in names
    return expect(is_there, f"{plural}.{group}", version if is_there else f"no {version}", hint)


def check_claim(cluster: Cluster) -> Iterator[Finding]:
    """Check the volume that steps and workers share."""
    what = f"claim {CLAIM}"
    call = cluster.core.read_namespaced_persistent_volume_claim
    claim = cluster.read(call, CLAIM, cluster.namespace)
    if claim is None:
        yield Finding(status="missing", what=what, value="not there", hint=INSTALL)
        return
    size = (claim.status.capacity or {}).get("storage", "")
    describe = f"kubectl -n {cluster.namespace} describe pvc {CLAIM}"
    hint = f"`{describe}` says why; some are bound by their first pod"
    phase = claim.status.phase or "unknown"
    yield expect(phase == "Bound", what, f"{phase} {size}".strip(), hint)
    modes = claim.status.access_modes or claim.spec.access_modes
    hint = "works on a single node; a storage class with ReadWriteMany allows several"
    yield expect(
        "ReadWriteMany" in modes,
        f"access modes of {CLAIM}",
        ", ".join(modes),
        hint,
        otherwise="warning",
    )


def check_namespace(cluster: Cluster) -> Iterator[Finding]:
    """Check that the namespace exists, and note what it does to pods."""
    found = cluster.read(cluster.core.read_namespace, cluster.namespace)
    if found is None:
        value = f"no {cluster.namespace}"
        yield Finding(status="missing", what="namespace", value=value, hint="--namespace")
        return
    labels = found.metadata.labels or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "none")
    value = f"{level}; all pods of citeflow fit `restricted`"
    yield Finding(status="ok", what="pod security enforced", value=value)
    if labels.get("istio-injection") == "enabled" or "istio.io/rev" in labels:
        value = "on; workers and reaper opt out by label, steps have one"
        yield Finding(status="note", what="istio sidecars", value=value)


def check_quotas(cluster: Cluster) -> Iterator[Finding]:
    """Note the quotas with their use, and the limits of single pods."""
    quotas = cluster.read(cluster.core.list_namespaced_resource_quota, cluster.namespace)
    for quota in quotas.items:
        used = quota.status.used or {}
        hard = quota.status.hard or {}
        value = ", ".join(f"{name} {used.get(name, '?')} of {most}" for name, most in hard.items())
        what = f"ResourceQuota {quota.metadata.name}"
        yield Finding(status="note", what=what, value=value or "without limits")
    ranges = cluster.read(cluster.core.list_namespaced_limit_range, cluster.namespace)
    texts = (pipeline.compiled().read_text() for pipeline in PIPELINES.values())
    asked = largest_limits(texts) if ranges.items else {}
    for limits in ranges.items:
        value = "; ".join(map(_describe_range, limits.spec.limits))
        refused = [text for item in limits.spec.limits for text in _refusals(item, asked)]
        what = f"LimitRange {limits.metadata.name}"
        if refused:
            hint = f"it refuses steps with {', '.join(refused)}: raise it, or compile lower limits"
            yield Finding(status="warning", what=what, value=value, hint=hint)
        else:
            yield Finding(status="note", what=what, value=value)


def _refusals(item: k8s.V1LimitRangeItem, asked: dict[str, str]) -> list[str]:
    """List the limits of the pipelines' steps that are above those of a LimitRange."""
    most = (item.max or {}) if item.type in ("Container", "Pod") else {}
    return [
        f"a limit of {amount} {name}"
        for name, amount in asked.items()
        if name in most and quantity(amount) > quantity(most[name])
    ]


def _describe_range(item: k8s.V1LimitRangeItem) -> str:
    bounds = {"min": item.min or {}, "max": item.max or {}}
    parts = [
        f"{bound} {resource} {amount}"
        for bound, amounts in bounds.items()
        for resource, amount in amounts.items()
    ]
    return f"{item.type}: {', '.join(parts) or 'defaults only'}"


def check_nodes(cluster: Cluster) -> Iterator[Finding]:
    """Check that the default job would fit on the nodes, were they empty."""
    spec = JobSpec()
    nodes = cluster.read(cluster.core.list_node).items
    free = [node.status.allocatable for node in nodes if not node.spec.unschedulable]
    room = sum(
        int(
            min(
                quantity(each["cpu"]) / quantity(spec.cpu),
                quantity(each["memory"]) / quantity(spec.pod_memory),
            )
        )
        for each in free
    )
    workers = f"{room} workers of {spec.cpu} cpu and {spec.pod_memory}"
    closed = len(nodes) - len(free)
    cordoned = f", and {closed} cordoned" if closed else ""
    value = f"{len(free)}{cordoned}; without other pods, room for {workers}"
    hint = "smaller workers: {cpu: 250m, memory: 1536Mi} as `job`"
    if closed:
        hint += "; or `kubectl uncordon` a node"
    yield expect(room >= spec.workers, "nodes", value, hint, otherwise="warning")


def check_reaper(cluster: Cluster) -> Iterator[Finding]:
    """Check that orphaned jobs are deleted."""
    what = f"CronJob {REAPER}"
    call = k8s.BatchV1Api(cluster.client.api).read_namespaced_cron_job
    found = cluster.read(call, REAPER, cluster.namespace)
    if found is None:
        hint = f"without it, jobs of cancelled runs go on until their deadline: {INSTALL}"
        yield Finding(status="missing", what=what, value="not there", hint=hint)
        return
    if found.spec.suspend:
        hint = "set spec.suspend to false"
        yield Finding(status="missing", what=what, value="suspended", hint=hint)
        return
    create = f"kubectl -n {cluster.namespace} create job --from=cronjob/{REAPER} reap-now"
    hint = f"`{create}`, then its log"
    last = found.status.last_successful_time if found.status else None
    if last is None:
        value = "has not succeeded yet; it runs every minute"
        yield Finding(status="warning", what=what, value=value, hint=hint)
        return
    age_s = round((datetime.datetime.now(datetime.UTC) - last).total_seconds())
    value = f"succeeded {age_s} s ago"
    yield expect(age_s < RECENT_S, what, value, hint, otherwise="warning")


CHECKS: dict[str, Check] = {
    "resources": check_custom_resources,
    "what jobs refer to": check_prerequisites,
    "runtimes": runtimes.check,
    "KubeRay": kuberay.check,
    f"claim {CLAIM}": check_claim,
    "rights": rbac.check,
    "namespace": check_namespace,
    "quotas": check_quotas,
    "nodes": check_nodes,
    f"CronJob {REAPER}": check_reaper,
    "retries": kfp_cluster.check_workflows,
    "links of the run page": kfp_cluster.check_links,
}
"""The checks by their subjects. One that is refused ends no other."""
