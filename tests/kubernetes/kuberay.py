"""RayJobs as KubeRay 1.6.2 and 1.7.0 take them: the server by fields, the operator by rules.

A CRD has more than a megabyte, nearly all of it Kubernetes' own pod, which is checked as such. What
is left are the fields of the API reference, which KubeRay generates from the Go types from which it
generates its CRDs too: docs/reference/api.md of ray-project/kuberay at 0a9eabde561a (v1.6.2) and at
97509c3a7216 (v1.7.0). What is required and what has 32 bits say the Go types of v1.7
(ray-operator/apis/ray/v1), what the operator refuses itself controllers/ray/utils/validation.go.
"""

import copy
import re

import jsonschema
from manifests.schemas import LABELS, TEXT, strict

VERSIONS = ("1.6.2", "1.7.0")

ANY = {}
INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
FLAG, NUMBER = {"type": "boolean"}, {"type": "number"}
MANAGER = {"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}
TEMPLATE = {"type": "object", "required": ["spec"]}

AUTH = strict(enableK8sTokenAuth=FLAG, mode={"enum": ["disabled", "token"]}, secretName=TEXT)
HEAD = {
    "enableIngress": FLAG,
    "headService": ANY,
    "labels": LABELS,
    "rayStartParams": LABELS,
    "resources": LABELS,
    "serviceType": TEXT,
    "template": TEMPLATE,
}
WORKERS = {
    "groupName": TEXT,
    "idleTimeoutSeconds": INT32,
    "labels": LABELS,
    "maxReplicas": INT32,
    "minReplicas": INT32,
    "numOfHosts": INT32,
    "rayStartParams": LABELS,
    "replicas": INT32,
    "resources": LABELS,
    "scaleStrategy": ANY,
    "suspend": FLAG,
    "template": TEMPLATE,
}
CLUSTER = {
    "authOptions": AUTH,
    "autoscalerOptions": ANY,
    "enableInTreeAutoscaling": FLAG,
    "gcsFaultToleranceOptions": ANY,
    "headServiceAnnotations": LABELS,
    "managedBy": MANAGER,
    "rayVersion": TEXT,
    "suspend": FLAG,
    "upgradeStrategy": ANY,
}
JOB = {
    "activeDeadlineSeconds": INT32,
    "backoffLimit": INT32,
    "clusterSelector": LABELS,
    "deletionStrategy": ANY,
    "entrypoint": TEXT,
    "entrypointNumCpus": NUMBER,
    "entrypointNumGpus": NUMBER,
    "entrypointResources": TEXT,
    "jobId": TEXT,
    "managedBy": MANAGER,
    "metadata": LABELS,
    "preRunningDeadlineSeconds": {**INT32, "minimum": 1},
    "runtimeEnvYAML": TEXT,
    "shutdownAfterJobFinishes": FLAG,
    "submissionMode": TEXT,
    "submitterConfig": strict(backoffLimit=INT32),
    "submitterPodTemplate": TEMPLATE,
    "suspend": FLAG,
    "ttlSecondsAfterFinished": INT32,
}
NEW = {  # what 1.7.0 has besides
    "head": {"ingressOptions": ANY},
    "workers": {"priority": INT32},
    "cluster": {"historyServerOptions": ANY, "networkPolicy": ANY, "tlsOptions": ANY},
}

OLDEST_RAY_WITH_TOKENS = (2, 52)
LONGEST_NAME = 47
"""KubeRay appends six letters for the cluster, and others for its services."""

KEPT_VARIABLES = {"RAY_REDIS_ADDRESS", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"}
"""Of the head, with settings of their own."""


def schema(version):
    """Return the schema of a RayJob in a version of KubeRay."""
    new = NEW if version == "1.7.0" else {}
    workers = strict(
        ["groupName", "maxReplicas", "minReplicas", "template"], **WORKERS, **new.get("workers", {})
    )
    cluster = strict(
        ["headGroupSpec"],
        **CLUSTER,
        **new.get("cluster", {}),
        headGroupSpec=strict(["template"], **HEAD, **new.get("head", {})),
        workerGroupSpecs={"type": "array", "items": workers},
    )
    return strict(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "ray.io/v1"},
        kind={"const": "RayJob"},
        metadata={"type": "object"},
        spec=strict(**JOB, rayClusterSpec=cluster),
    )


def schema_errors(job, version):
    """Return what is unknown or wrong of a RayJob."""
    validator = jsonschema.Draft202012Validator(schema(version))
    return [error.message for error in validator.iter_errors(job)]


def refusals(job):
    """Return for which of what a job of citeflow's has the operator would refuse it."""
    spec, name = job["spec"], job["metadata"]["name"]
    cluster = spec["rayClusterSpec"]
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    (container, *_) = head["template"]["spec"]["containers"]
    ray = tuple(int(part) for part in cluster["rayVersion"].split("."))
    broken = {
        "name": len(name) > LONGEST_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name),
        "activeDeadlineSeconds": spec["activeDeadlineSeconds"] < 1,
        "backoffLimit": spec["backoffLimit"] < 0,
        "rayVersion": ray < OLDEST_RAY_WITH_TOKENS,
        "env": not KEPT_VARIABLES.isdisjoint(entry["name"] for entry in container["env"]),
        "replicas": not all(0 <= each["minReplicas"] <= each["maxReplicas"] for each in workers),
        "containers": not all(each["template"]["spec"]["containers"] for each in workers),
        "rayStartParams": not all(map(_has_its_own_parameters, (head, *workers))),
    }
    return [what for what, is_so in broken.items() if is_so]


def _has_its_own_parameters(group):
    """Tell whether a group's parameters for `ray start` are none that have fields."""
    parameters = group["rayStartParams"].keys()
    return parameters.isdisjoint({"labels", "redis-username"}) and "resources" not in group


def pods(job):
    """Return the pods that KubeRay makes of a RayJob, as head, worker and submitter.

    It sets no security context of its own; a worker gets an init container with the worker's.
    """
    spec = copy.deepcopy(job["spec"])
    (group,) = spec["rayClusterSpec"]["workerGroupSpecs"]
    return {
        "head": spec["rayClusterSpec"]["headGroupSpec"]["template"],
        "worker": group["template"],
        "submitter": spec["submitterPodTemplate"],
    }
