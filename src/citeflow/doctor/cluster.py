"""Checks of a Kubernetes cluster, with the rights of whoever asks: what these do not let one see is told as such."""

import datetime
from collections.abc import Iterator
from dataclasses import replace

from citeflow.doctor import Finding, expect, rights
from citeflow.doctor.asking import Check, Cluster, Json, findings
from citeflow.kubernetes.client import KINDS, WORKFLOWS, Api
from citeflow.kubernetes.job_spec import CLAIM, LAUNCHERS, JobSpec, quantity

REAPER = "citeflow-reaper"
RECENT_S = 600.0
"""How long ago the reaper, which runs every minute, may have been well for the last time."""

INSTALL = "kubectl apply -k manifests/overlays/..., as docs/cluster.md says"


def check(api: Api, *, launcher: str, service_account: str = "") -> Iterator[Finding]:
    """All of them, unless the server does not answer at all."""
    cluster = Cluster(api=api, launcher=launcher, service_account=service_account)
    (first,) = findings(cluster, "Kubernetes API", _version)
    if first.status != "ok":
        yield replace(first, status="missing")
        return
    yield first
    for what, each in CHECKS.items():
        yield from findings(cluster, what, each)


def _version(cluster: Cluster) -> Iterator[Finding]:
    version = (cluster.get("/version") or {})["gitVersion"]
    yield Finding(
        status="ok", what="Kubernetes API", value=f"{version}, namespace {cluster.namespace}"
    )


def _kinds(cluster: Cluster) -> Iterator[Finding]:
    """The resources that others bring."""
    group, version, plural = KINDS[LAUNCHERS[cluster.launcher]]
    hint = "install the training operator v1.9, or use --launcher trainjob"
    if cluster.launcher == "trainjob":
        hint = "install Kubeflow Trainer v2.2 or newer, or use --launcher pytorchjob"
    yield _kind(cluster, group, version, plural, hint)
    yield _kind(cluster, *WORKFLOWS, "install Kubeflow Pipelines 2.17")
    tensorboards = _kind(cluster, "tensorboard.kubeflow.org", "v1alpha1", "tensorboards", "")
    if tensorboards.status == "ok":
        yield tensorboards
    else:
        value = "not there; only the overlay `kubeflow` needs it"
        yield Finding(status="note", what=tensorboards.what, value=value)
    if cluster.launcher == "trainjob":
        name = JobSpec().runtime
        found = cluster.get(f"/apis/{group}/{version}/clustertrainingruntimes/{name}")
        hint = "install Trainer's runtimes, or name another: {runtime: ...} as `job`"
        yield expect(
            found is not None, "ClusterTrainingRuntime", name if found else f"no {name}", hint
        )


def _kind(cluster: Cluster, group: str, version: str, plural: str, hint: str) -> Finding:
    known = cluster.get(f"/apis/{group}/{version}") or {}
    is_there = any(resource["name"] == plural for resource in known.get("resources", []))
    return expect(is_there, f"{plural}.{group}", version if is_there else f"no {version}", hint)


def _claim(cluster: Cluster) -> Iterator[Finding]:
    what, claim = f"claim {CLAIM}", cluster.mine("persistentvolumeclaims", CLAIM)
    if claim is None:
        yield Finding(status="missing", what=what, value="not there", hint=INSTALL)
        return
    status = claim.get("status", {})
    phase, size = status.get("phase", "unknown"), status.get("capacity", {}).get("storage", "")
    hint = f"`kubectl -n {cluster.namespace} describe pvc {CLAIM}` says why; some are bound by their first pod"
    yield expect(phase == "Bound", what, f"{phase} {size}".strip(), hint)
    modes = status.get("accessModes") or claim["spec"]["accessModes"]
    hint = (
        "works on a single node only; a storage class with ReadWriteMany lets workers be on several"
    )
    shared = "ReadWriteMany" in modes
    yield expect(shared, f"access modes of {CLAIM}", ", ".join(modes), hint, otherwise="warning")


def _namespace(cluster: Cluster) -> Iterator[Finding]:
    found = cluster.get(f"/api/v1/namespaces/{cluster.namespace}")
    if found is None:
        yield Finding(
            status="missing", what="namespace", value=f"no {cluster.namespace}", hint="--namespace"
        )
        return
    labels = found["metadata"].get("labels") or {}
    level = labels.get("pod-security.kubernetes.io/enforce", "none")
    yield Finding(
        status="ok",
        what="pod security enforced",
        value=f"{level}; all pods of citeflow fit `restricted`",
    )
    if labels.get("istio-injection") == "enabled" or "istio.io/rev" in labels:
        value = "on; workers and reaper opt out by label, steps have one"
        yield Finding(status="note", what="istio sidecars", value=value)


def _limits(cluster: Cluster) -> Iterator[Finding]:
    """Quotas with what is used of them, and ranges that pods must keep to."""
    for quota in (cluster.mine("resourcequotas") or {}).get("items", []):
        status = quota.get("status", {})
        used, hard = status.get("used", {}), status.get("hard", {})
        value = ", ".join(f"{name} {used.get(name, '?')} of {most}" for name, most in hard.items())
        name = quota["metadata"]["name"]
        yield Finding(status="note", what=f"ResourceQuota {name}", value=value or "without limits")
    for limits in (cluster.mine("limitranges") or {}).get("items", []):
        texts = [_range(entry) for entry in limits["spec"]["limits"]]
        yield Finding(
            status="note", what=f"LimitRange {limits['metadata']['name']}", value="; ".join(texts)
        )


def _range(entry: Json) -> str:
    parts = [
        f"{word} {name} {value}"
        for word in ("min", "max")
        for name, value in (entry.get(word) or {}).items()
    ]
    return f"{entry['type']}: {', '.join(parts) or 'defaults only'}"


def _nodes(cluster: Cluster) -> Iterator[Finding]:
    """Whether a worker of the default settings would fit on a node, were it empty."""
    spec = JobSpec()
    nodes = (cluster.get("/api/v1/nodes") or {}).get("items", [])
    sizes = [
        each["status"]["allocatable"]
        for each in nodes
        if not each.get("spec", {}).get("unschedulable")
    ]
    room = sum(_fitting(size, spec) for size in sizes)
    value = f"{len(sizes)}; without other pods, room for {room} workers of {spec.cpu} cpu and {spec.memory}"
    hint = "smaller workers: {cpu: 250m, memory: 1536Mi} as `job`"
    yield expect(room >= spec.workers, "nodes", value, hint, otherwise="warning")


def _fitting(size: dict[str, str], spec: JobSpec) -> int:
    shares = (
        quantity(size["cpu"]) / quantity(spec.cpu),
        _bytes(size["memory"]) / quantity(spec.memory),
    )
    return int(min(shares))


def _bytes(text: str) -> float:
    return quantity(text) or float(text)


def _reaper(cluster: Cluster) -> Iterator[Finding]:
    what, found = f"CronJob {REAPER}", cluster.mine("cronjobs", REAPER, group="batch/v1")
    if found is None:
        hint = f"without it, jobs of cancelled runs go on until their deadline: {INSTALL}"
        yield Finding(status="missing", what=what, value="not there", hint=hint)
        return
    last = found.get("status", {}).get("lastSuccessfulTime")
    hint = f"`kubectl -n {cluster.namespace} create job --from=cronjob/{REAPER} reap-now`, then its log"
    if found["spec"].get("suspend"):
        yield Finding(
            status="missing", what=what, value="suspended", hint="set spec.suspend to false"
        )
    elif last is None:
        yield Finding(
            status="warning",
            what=what,
            value="has not been well yet; it runs every minute",
            hint=hint,
        )
    else:
        age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(last)
        seconds = round(age.total_seconds())
        yield expect(
            seconds < RECENT_S, what, f"was well {seconds} s ago", hint, otherwise="warning"
        )


CHECKS: dict[str, Check] = {
    "resources": _kinds,
    f"claim {CLAIM}": _claim,
    "rights": rights.check,
    "namespace": _namespace,
    "quotas": _limits,
    "nodes": _nodes,
    f"CronJob {REAPER}": _reaper,
}
"""What is looked at, and what for; each by itself, so that one that is refused ends no other."""
