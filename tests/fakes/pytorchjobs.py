"""What training-operator v1.9.4 does for a PyTorchJob, as read in its controller."""

import copy
import re
from datetime import datetime
from typing import Any

from .kube_objects import timestamp

KIND = "PyTorchJob"
PORT_NAME = "pytorchjob-port"
LABEL = "training.kubeflow.org/"


def validate(job: dict) -> None:
    """What the operator's webhook refuses. Raises: ValueError."""
    name, specs = job["metadata"]["name"], job["spec"].get("pytorchReplicaSpecs")
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise ValueError(f"metadata.name: Invalid value: {name}: should match DNS-1035")
    if not specs or set(specs) - {"Master", "Worker"}:
        raise ValueError("spec.pytorchReplicaSpecs: must be of Master and Worker")
    if specs.get("Master", {}).get("replicas", 1) != 1:
        raise ValueError("spec.pytorchReplicaSpecs[Master].replicas: must be 1")
    if "nProcPerNode" in job["spec"].get("elasticPolicy", {}) and "nprocPerNode" in job["spec"]:
        raise ValueError(
            "spec.elasticPolicy.nProcPerNode: must not be used with nprocPerNode in spec"
        )
    for spec in specs.values():
        containers = spec["template"]["spec"]["containers"]
        if "pytorch" not in [container["name"] for container in containers]:
            raise ValueError("must have at least one container with name pytorch")


def reconcile(operator: Any, job: dict) -> None:
    status = copy.deepcopy(job.get("status") or {})
    policy, name = job["spec"].get("runPolicy") or {}, job["metadata"]["name"]
    pods = operator.pods_of(job)
    if not status.get("conditions"):
        set_condition(status, "Created", "Created", f"{KIND} {name} is created.")
    if is_true(status, "Succeeded") or is_true(status, "Failed"):
        _clean(operator, job, status, policy, pods)
    elif policy.get("suspend"):
        _suspend(operator, status, name, pods)
    elif told := _limit(operator, policy, status, job, pods):
        status["completionTime"] = status.get("completionTime") or operator.timestamp()
        if operator.cleans_all_at_limit:
            for pod in pods:
                operator.delete_pod(pod)
        set_condition(status, "Failed", "Failed", f"Job {name} has failed because it {told}")
        _clean(operator, job, status, policy, pods)
    else:
        _run(operator, job, status, pods)
    operator.write_status(job, status)


def _run(operator: Any, job: dict, status: dict, pods: list[dict]) -> None:
    name = job["metadata"]["name"]
    if is_true(status, "Suspended"):
        set_condition(status, "Suspended", "Resumed", f"{KIND} {name} is resumed.", "False")
        status.pop("startTime", None)
    counts = {}
    for role, spec in job["spec"]["pytorchReplicaSpecs"].items():
        own = [
            pod for pod in pods if pod["metadata"]["labels"][f"{LABEL}replica-type"] == role.lower()
        ]
        counts[role] = _reconcile_pods(operator, job, status, role, spec, own)
    status["replicaStatuses"] = counts
    status.setdefault("startTime", operator.timestamp())
    for role, spec in job["spec"]["pytorchReplicaSpecs"].items():
        _update_conditions(operator, job, status, role, spec)


def _reconcile_pods(
    operator: Any, job: dict, status: dict, role: str, spec: dict, pods: list[dict]
) -> dict:
    count = {"active": 0, "succeeded": 0, "failed": 0}
    by_index = {int(pod["metadata"]["labels"][f"{LABEL}replica-index"]): pod for pod in pods}
    for index in range(max([spec.get("replicas", 1), *(index + 1 for index in by_index)])):
        pod = by_index.get(index)
        if pod is None:
            operator.create_pod(job, *_pod(job, role, index, spec))
            continue
        if index >= spec.get("replicas", 1):
            operator.delete_pod(pod)
        phase, policy = pod["status"].get("phase"), spec.get("restartPolicy", "OnFailure")
        retries = policy in ("OnFailure", "Always") or (
            policy == "ExitCode" and _exit_code(pod) >= 128
        )
        name = job["metadata"]["name"]
        if phase == "Failed" and retries:
            operator.delete_pod(pod)
            told = f"job {name} is restarting because {role} replica(s) failed."
            set_condition(status, "Restarting", "Restarting", told)
        elif phase == "Failed" and policy == "ExitCode":
            set_condition(
                status,
                "Failed",
                "Failed",
                f'job "{name}" is failing because "{role}" replica(s) failed.',
            )
        # A pod that is being deleted counts as one that failed.
        is_failed = phase == "Failed" or (
            phase == "Running" and "deletionTimestamp" in pod["metadata"]
        )
        count["failed"] += is_failed
        count["succeeded"] += phase == "Succeeded"
        count["active"] += phase == "Running" and not is_failed
    return count


def _update_conditions(operator: Any, job: dict, status: dict, role: str, spec: dict) -> None:
    name, space = job["metadata"]["name"], job["metadata"]["namespace"]
    count, replicas = status["replicaStatuses"][role], spec.get("replicas", 1)
    has_master = "Master" in job["spec"]["pytorchReplicaSpecs"]
    shown = name if has_master else f"{space}/{name}"
    if role == "Master" or not has_master:
        is_elastic = not has_master and bool(job["spec"].get("elasticPolicy"))
        if count["succeeded"] == replicas or (is_elastic and count["succeeded"]):
            status["completionTime"] = status.get("completionTime") or operator.timestamp()
            set_condition(
                status, "Succeeded", "Succeeded", f"{KIND} {shown} successfully completed."
            )
            if has_master:
                return
        elif count["active"]:
            set_condition(status, "Running", "Running", f"{KIND} {shown} is running.")
    if count["failed"] and replicas > count["succeeded"] + count["active"]:
        told = f"because {count['failed']} {role} replica(s) failed."
        if spec.get("restartPolicy", "OnFailure") != "Never":
            set_condition(status, "Restarting", "Restarting", f"{KIND} {name} is restarting {told}")
        else:
            status["completionTime"] = status.get("completionTime") or operator.timestamp()
            set_condition(status, "Failed", "Failed", f"{KIND} {name} is failed {told}")


def _limit(operator: Any, policy: dict, status: dict, job: dict, pods: list[dict]) -> str:
    """Why a job must end now, if it must."""
    specs = {role.lower(): spec for role, spec in job["spec"]["pytorchReplicaSpecs"].items()}
    counted = [
        pod
        for pod in pods
        if pod["status"].get("phase") == "Running"
        and specs[pod["metadata"]["labels"][f"{LABEL}replica-type"]].get(
            "restartPolicy", "OnFailure"
        )
        != "Never"
    ]
    restarts = sum(
        state["restartCount"]
        for pod in counted
        for state in pod["status"].get("containerStatuses") or []
    )
    limit, deadline = policy.get("backoffLimit"), policy.get("activeDeadlineSeconds")
    if limit is not None and restarts >= max(limit, 1):
        return "has reached the specified backoff limit"
    if (
        deadline is not None
        and "startTime" in status
        and operator.seconds_since(status["startTime"]) >= deadline
    ):
        return "was active longer than specified deadline"
    return ""


def _clean(operator: Any, job: dict, status: dict, policy: dict, pods: list[dict]) -> None:
    cleaned = {
        "All": ("Pending", "Running", "Succeeded", "Failed"),
        "Running": ("Pending", "Running"),
    }
    for pod in pods:
        if pod["status"].get("phase") in cleaned.get(policy.get("cleanPodPolicy", "None"), ()):
            operator.delete_pod(pod)
    if is_true(status, "Succeeded"):
        for count in status.get("replicaStatuses", {}).values():
            count["succeeded"] += count["active"]
            count["active"] = 0
    ttl = policy.get("ttlSecondsAfterFinished")
    if (
        ttl is not None
        and "completionTime" in status
        and operator.seconds_since(status["completionTime"]) >= ttl
    ):
        operator.delete_job(job)


def _suspend(operator: Any, status: dict, name: str, pods: list[dict]) -> None:
    for pod in pods:
        operator.delete_pod(pod)
    for count in status.get("replicaStatuses", {}).values():
        count["active"] = 0
    told = f"{KIND} {name} is suspended."
    if is_true(status, "Running"):
        set_condition(status, "Running", "Suspended", told, "False")
    set_condition(status, "Suspended", "Suspended", told)


def _exit_code(pod: dict) -> int:
    states = pod["status"].get("containerStatuses") or []
    return next(
        (
            s["state"]["terminated"]["exitCode"]
            for s in states
            if "terminated" in s.get("state", {})
        ),
        0xBEEF,
    )


def is_true(status: dict, type_: str) -> bool:
    return any(
        (found["type"], found["status"]) == (type_, "True")
        for found in status.get("conditions") or []
    )


def set_condition(status: dict, type_: str, reason: str, message: str, value: str = "True") -> None:
    """Of Running and Restarting there is one at a time; the end of a job makes Running false."""
    conditions = status.setdefault("conditions", [])
    old = next((found for found in conditions if found["type"] == type_), None)
    reason = f"{KIND}{reason}"
    if is_true(status, "Failed") or (old and (old["status"], old["reason"]) == (value, reason)):
        return
    gone = {type_, {"Restarting": "Running", "Running": "Restarting"}.get(type_)}
    kept = [found for found in conditions if found["type"] not in gone]
    if type_ in ("Failed", "Succeeded"):
        kept = [
            {**found, "status": "False"} if found["type"] == "Running" else found for found in kept
        ]
    new = {
        "type": type_,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": timestamp(),
    }
    new["lastTransitionTime"] = (
        old["lastTransitionTime"] if old and old["status"] == value else timestamp()
    )
    status["conditions"] = [*kept, new]


def seconds_between(start: str, end: datetime) -> float:
    return (end - datetime.fromisoformat(start)).total_seconds()


def _pod(job: dict, role: str, index: int, spec: dict) -> tuple[str, dict, dict]:
    """The name, the labels and the template of a pod."""
    name, specs = job["metadata"]["name"], job["spec"]["pytorchReplicaSpecs"]
    labels = {"job-name": name, "replica-type": role.lower(), "replica-index": str(index)}
    labels["operator-name"] = "pytorchjob-controller"
    if role == "Master" or ("Master" not in specs and index == 0):
        labels["job-role"] = "master"
    template = copy.deepcopy(spec["template"])
    policy = spec.get("restartPolicy", "OnFailure")
    template["spec"]["restartPolicy"] = "Never" if policy == "ExitCode" else policy
    for container in template["spec"]["containers"]:
        container["env"] = [*(container.get("env") or []), *_environment(job, role, index)]
        ports = container.setdefault("ports", [])
        if container["name"] == "pytorch" and PORT_NAME not in [port.get("name") for port in ports]:
            ports.append({"name": PORT_NAME, "containerPort": 23456, "protocol": "TCP"})
    if role == "Worker" and "Master" in specs:
        template["spec"].setdefault("initContainers", []).append(
            {"name": "init-pytorch", "image": "alpine:3.10"}
        )
    full = {f"{LABEL}{key}": value for key, value in labels.items()}
    return f"{name}-{role.lower()}-{index}", full, template


def _environment(job: dict, role: str, index: int) -> list[dict]:
    spec, name = job["spec"], job["metadata"]["name"]
    total = sum(replica.get("replicas", 1) for replica in spec["pytorchReplicaSpecs"].values())
    elastic, processes = spec.get("elasticPolicy"), spec.get("nprocPerNode") or "auto"
    values = {"PYTHONUNBUFFERED": "1"}
    if "Master" in spec["pytorchReplicaSpecs"]:
        host, rank = f"{name}-master-0", str(index + (role == "Worker"))
        world = total * (int(processes) if processes.isdigit() else 1)
        values |= {
            "MASTER_PORT": "23456",
            "MASTER_ADDR": host,
            "PET_MASTER_PORT": "23456",
            "PET_MASTER_ADDR": host,
        }
        values |= {
            "WORLD_SIZE": str(world),
            "RANK": rank,
            "PET_NPROC_PER_NODE": processes,
            "PET_NODE_RANK": rank,
        }
    if not elastic:
        values["PET_NNODES"] = str(total)
    else:
        workers = spec["pytorchReplicaSpecs"]["Worker"].get("replicas", 1)
        host, port = elastic.get("rdzvHost") or f"{name}-worker-0", elastic.get("rdzvPort") or 23456
        values["PET_RDZV_ENDPOINT"] = f"{host}:{port}"
        values["PET_RDZV_BACKEND"] = elastic.get("rdzvBackend") or "c10d"
        values["PET_NNODES"] = (
            f"{elastic.get('minReplicas') or workers}:{elastic.get('maxReplicas') or workers}"
        )
        others = {
            "PET_MAX_RESTARTS": "maxRestarts",
            "PET_NPROC_PER_NODE": "nProcPerNode",
            "PET_RDZV_ID": "rdzvId",
        }
        values |= {
            key: str(elastic[field])
            for key, field in others.items()
            if elastic.get(field) is not None
        }
        if elastic.get("rdzvConf"):
            values["PET_RDZV_CONF"] = ",".join(
                f"{entry['key']}={entry['value']}" for entry in elastic["rdzvConf"]
            )
    return [{"name": key, "value": value} for key, value in values.items()]
