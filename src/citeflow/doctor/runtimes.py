"""Check Kubeflow Trainer and its ClusterTrainingRuntimes: what they do to long trainings."""

from collections.abc import Iterator

from kubernetes import client as k8s

from citeflow.doctor import Finding, expect
from citeflow.doctor.kube_client import Cluster, controller_version
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import KubeObject

RUNTIMES = "clustertrainingruntimes"
LAST_WITHOUT_END = (2, 3, 0)
"""Newest Trainer that makes a job again when its JobSet has reached its time to live.

Source: https://github.com/kubeflow/trainer/issues/3779
"""


def check(cluster: Cluster) -> Iterator[Finding]:
    """Check the limits of restarts and the times to live; silent where no TrainJob is launched."""
    launcher = cluster.launcher
    if all(needed.plural != RUNTIMES for needed in launcher.prerequisites(JobSpec())):
        return
    call = k8s.CustomObjectsApi(cluster.client.api).list_cluster_custom_object
    found = cluster.read(call, launcher.group, launcher.version, RUNTIMES)
    runtimes = {each["metadata"]["name"]: each for each in (found or {"items": []})["items"]}
    yield from _check_restarts(runtimes)
    yield from _check_times_to_live(cluster, runtimes)


def _check_restarts(runtimes: dict[str, KubeObject]) -> Iterator[Finding]:
    spec = JobSpec()
    short = [name for name, each in runtimes.items() if _backoff_limit(each) is None]
    what = "runtimes with the default backoffLimit"
    if spec.runtime in short:
        hint = "kubectl apply -k manifests/trainer: 6 restarts of all pods together end a job"
        yield Finding(status="warning", what=what, value=", ".join(short), hint=hint)
    elif short:
        value = f"{', '.join(short)}; of 7 workers, none may be lost. {spec.runtime} is the default"
        yield Finding(status="note", what=what, value=value)


def _check_times_to_live(cluster: Cluster, runtimes: dict[str, KubeObject]) -> Iterator[Finding]:
    mortal = [
        name
        for name, each in runtimes.items()
        if "ttlSecondsAfterFinished" in each["spec"]["template"]["spec"]
    ]
    if not mortal:
        return
    version = controller_version(cluster, "trainer")
    shown = ".".join(map(str, version)) or "unknown"
    hint = "remove ttlSecondsAfterFinished: up to 2.3.0, an ended job is made again without end"
    what = "runtimes with a time to live"
    value = f"{', '.join(mortal)}; Trainer {shown}"
    yield expect(version > LAST_WITHOUT_END, what, value, hint, otherwise="warning")


def _backoff_limit(runtime: KubeObject) -> int | None:
    """Return the limit of the Job of the workers, or None where it is Kubernetes' own."""
    jobs = runtime["spec"]["template"]["spec"].get("replicatedJobs") or []
    limits = [job["template"]["spec"].get("backoffLimit") for job in jobs if job["name"] == "node"]
    return limits[0] if limits else None
