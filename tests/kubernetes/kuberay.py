"""RayJobs as KubeRay 1.7.0's reference describes them.

A CRD has a megabyte: the pods' own part of it is Kubernetes', and is checked as such. What is left
are the fields that a job of citeflow's may have. That 1.6.2 knows them too follows from release
notes alone. Source: https://docs.ray.io/en/master/cluster/kubernetes/references.html (v1.7.0).
"""

import copy

import jsonschema
from manifests.schemas import LABELS, TEXT, strict

INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
SIZE = {**INT32, "minimum": 0}
FLAG = {"type": "boolean"}
TEMPLATE = {"type": "object", "required": ["metadata", "spec"]}

CLUSTER = strict(
    ["headGroupSpec"],
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=strict(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headGroupSpec=strict(["template"], rayStartParams=LABELS, template=TEMPLATE),
    workerGroupSpecs={
        "type": "array",
        "items": strict(
            ["groupName", "maxReplicas", "minReplicas", "template"],
            groupName=TEXT,
            replicas=SIZE,
            minReplicas=SIZE,
            maxReplicas=SIZE,
            rayStartParams=LABELS,
            template=TEMPLATE,
        ),
    },
)
SCHEMA = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata={"type": "object"},
    spec=strict(
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        submitterConfig=strict(backoffLimit=INT32),
        submitterPodTemplate=TEMPLATE,
        backoffLimit=INT32,
        activeDeadlineSeconds={**INT32, "minimum": 1},
        preRunningDeadlineSeconds={**INT32, "minimum": 1},
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=INT32,
        suspend=FLAG,
        rayClusterSpec=CLUSTER,
    ),
)


def schema_errors(job):
    """Return what is unknown or wrong of a RayJob."""
    return [error.message for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(job)]


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
