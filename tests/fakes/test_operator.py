import sys
import time

import psutil
import pytest
from kubernetes import client
from kubernetes.client.rest import ApiException

from .kube_api import KubeApi
from .operator import TrainingOperator
from .processes import MARK
from .pytorchjobs import is_true

NAMESPACE = "kubeflow"
W0, W1 = "a-worker-0", "a-worker-1"


@pytest.fixture
def api():
    with KubeApi() as api:
        yield api


@pytest.fixture
def operator(api):
    """One that steps when it is told to, with pods that do as they are told."""
    operator = TrainingOperator(api, restart_delay=0)
    yield operator
    operator.close()


def job(*, workers=2, restart="OnFailure", elastic=True, master=False, code="", policy=None):
    container = {"name": "pytorch", "image": "i", "command": ["python3"], "args": ["-c", code]}
    template = {"metadata": {"labels": {"own": "label"}}, "spec": {"containers": [container]}}
    replicas = {"replicas": workers, "restartPolicy": restart, "template": template}
    specs = {"Worker": replicas, **({"Master": {**replicas, "replicas": 1}} if master else {})}
    spec = {"pytorchReplicaSpecs": specs, "runPolicy": policy or {}, "nprocPerNode": "1"}
    if elastic:
        spec["elasticPolicy"] = {"rdzvBackend": "c10d", "maxRestarts": 3}
    meta = {"name": "a", "namespace": NAMESPACE}
    return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": meta, "spec": spec}


def train_job(code="", nodes=2):
    trainer = {"numNodes": nodes, "image": "i", "command": ["python3"], "args": ["-c", code]}
    meta = {"name": "a", "namespace": NAMESPACE}
    spec = {"runtimeRef": {"name": "torch"}, "trainer": trainer}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": meta,
        "spec": spec,
    }


def conditions(api, kind="PyTorchJob"):
    return {
        found["type"]: found["status"]
        for found in api.get(kind, NAMESPACE, "a")["status"].get("conditions", [])
    }


def pods(api):
    return {pod["metadata"]["name"]: pod["status"]["phase"] for pod in api.list("pods")}


def running(api, operator, obj):
    """The job with all its pods started."""
    api.put(obj)
    operator.settle()
    for name in pods(api):
        operator.start(name)
    operator.settle()


def container(api, name):
    return api.get("pods", NAMESPACE, name)["status"]["containerStatuses"][0]


def eventually(condition):
    end = time.monotonic() + 10
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


# What the operator makes of a job


def test_a_job_gets_its_pods_with_labels_owner_and_environment(api, operator):
    api.put(job())
    operator.settle()
    assert conditions(api) == {"Created": "True"}
    assert pods(api) == {W0: "Pending", W1: "Pending"}
    pod = api.get("pods", NAMESPACE, W1)
    assert pod["metadata"]["labels"] == {
        "own": "label",
        "training.kubeflow.org/job-name": "a",
        "training.kubeflow.org/replica-type": "worker",
        "training.kubeflow.org/replica-index": "1",
        "training.kubeflow.org/operator-name": "pytorchjob-controller",
    }
    assert (
        pod["metadata"]["ownerReferences"][0]["uid"]
        == api.get("PyTorchJob", NAMESPACE, "a")["metadata"]["uid"]
    )
    assert {entry["name"]: entry["value"] for entry in pod["spec"]["containers"][0]["env"]} == {
        "PYTHONUNBUFFERED": "1",
        "PET_RDZV_ENDPOINT": "a-worker-0:23456",
        "PET_RDZV_BACKEND": "c10d",
        "PET_NNODES": "2:2",
        "PET_MAX_RESTARTS": "3",
    }
    assert len(api.list("services")) == 2


def test_a_master_is_told_who_is_who_and_workers_wait_for_it(api, operator):
    api.put(job(workers=1, master=True, elastic=False))
    operator.settle()
    worker = api.get("pods", NAMESPACE, W0)["spec"]
    values = {entry["name"]: entry["value"] for entry in worker["containers"][0]["env"]}
    assert (values["MASTER_ADDR"], values["RANK"], values["WORLD_SIZE"]) == ("a-master-0", "1", "2")
    assert (values["PET_NODE_RANK"], values["PET_NNODES"], values["PET_NPROC_PER_NODE"]) == (
        "1",
        "2",
        "1",
    )
    assert worker["initContainers"][0]["image"] == "alpine:3.10"
    assert "initContainers" not in api.get("pods", NAMESPACE, "a-master-0")["spec"]


@pytest.mark.parametrize("wrong", ["name", "container"])
def test_what_the_webhook_refuses_is_refused(api, operator, wrong):
    obj = job()
    if wrong == "name":
        obj["metadata"]["name"] = "1a"
    else:
        obj["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0][
            "name"
        ] = "other"
    custom = client.CustomObjectsApi(api.client())
    with pytest.raises(ApiException, match="Invalid"):
        custom.create_namespaced_custom_object("kubeflow.org", "v1", NAMESPACE, "pytorchjobs", obj)


def test_a_job_runs_and_any_workers_end_is_its_success(api, operator):
    running(api, operator, job(policy={"cleanPodPolicy": "Running"}))
    assert conditions(api) == {"Created": "True", "Running": "True"}
    operator.write(W1, "done")
    operator.finish(W1, 0)
    operator.settle()
    assert conditions(api) == {"Created": "True", "Running": "False", "Succeeded": "True"}
    assert pods(api) == {W1: "Succeeded"}
    assert client.CoreV1Api(api.client()).read_namespaced_pod_log(W1, NAMESPACE) == "done\n"


def test_without_elasticity_all_workers_have_to_end(api, operator):
    running(api, operator, job(elastic=False))
    operator.finish(W1, 0)
    operator.settle()
    assert "Succeeded" not in conditions(api)
    operator.finish(W0, 0)
    operator.settle()
    assert conditions(api)["Succeeded"] == "True"


def test_with_a_master_its_end_is_the_jobs(api, operator):
    running(api, operator, job(master=True, elastic=False))
    operator.finish("a-master-0", 0)
    operator.settle()
    assert conditions(api)["Succeeded"] == "True"
    counts = api.get("PyTorchJob", NAMESPACE, "a")["status"]["replicaStatuses"]
    assert counts["Worker"] == {"active": 0, "succeeded": 2, "failed": 0}


def test_a_container_that_fails_is_restarted_in_place(api, operator):
    running(api, operator, job())
    uid = api.get("pods", NAMESPACE, W0)["metadata"]["uid"]
    operator.finish(W0, 137, "OOMKilled")
    assert container(api, W0)["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    operator.settle()
    now = container(api, W0)
    assert (now["restartCount"], "running" in now["state"]) == (1, True)
    assert now["lastState"]["terminated"]["exitCode"] == 137
    assert now["lastState"]["terminated"]["reason"] == "OOMKilled"
    assert api.get("pods", NAMESPACE, W0)["metadata"]["uid"] == uid
    assert conditions(api) == {"Created": "True", "Running": "True"}


@pytest.mark.parametrize("cleans_all", [False, True])
def test_restarts_of_all_pods_together_reach_the_limit(api, operator, cleans_all):
    operator.cleans_all_at_limit = cleans_all
    running(api, operator, job(policy={"backoffLimit": 2, "cleanPodPolicy": "None"}))
    for name in (W0, W1):
        operator.finish(name, 1)
        operator.settle()
    assert conditions(api)["Failed"] == "True"
    assert (
        "backoff limit"
        in api.get("PyTorchJob", NAMESPACE, "a")["status"]["conditions"][-1]["message"]
    )
    assert list(pods(api)) == ([] if cleans_all else [W0, W1])


def test_a_job_without_restarts_fails_with_a_pod(api, operator):
    running(api, operator, job(restart="Never", policy={"cleanPodPolicy": "Running"}))
    operator.finish(W1, 3)
    operator.settle()
    assert conditions(api) == {"Created": "True", "Running": "False", "Failed": "True"}
    assert pods(api) == {W1: "Failed"}
    assert container(api, W1)["state"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(("code", "ends"), [(1, True), (137, False)])
def test_exit_codes_from_128_make_a_new_pod_and_others_end_the_job(api, operator, code, ends):
    running(api, operator, job(restart="ExitCode"))
    uid = api.get("pods", NAMESPACE, W1)["metadata"]["uid"]
    operator.finish(W1, code)
    operator.step()
    assert ("Failed" in conditions(api), "Restarting" in conditions(api)) == (ends, not ends)
    operator.settle()
    assert (api.get("pods", NAMESPACE, W1)["metadata"]["uid"] == uid) == ends


def test_a_deleted_pod_gets_a_successor_of_the_same_name(api, operator):
    running(api, operator, job())
    uid = api.get("pods", NAMESPACE, W1)["metadata"]["uid"]
    operator.stuck.add(W1)
    client.CoreV1Api(api.client()).delete_namespaced_pod(W1, NAMESPACE)
    operator.step()
    assert "deletionTimestamp" in api.get("pods", NAMESPACE, W1)["metadata"]
    assert conditions(api) == {"Created": "True", "Restarting": "True"}
    operator.stuck.clear()
    operator.settle()
    assert api.get("pods", NAMESPACE, W1)["metadata"]["uid"] != uid
    operator.start(W1)
    operator.settle()
    assert conditions(api) == {"Created": "True", "Running": "True"}


def test_an_evicted_pod_gets_a_successor(api, operator):
    running(api, operator, job())
    operator.evict(W0)
    operator.settle()
    assert pods(api) == {W0: "Pending", W1: "Running"}


def test_a_deleted_job_takes_its_pods_along(api, operator):
    running(api, operator, job())
    api.remove("pytorchjobs", NAMESPACE, "a")
    operator.settle()
    assert (api.list("pods"), api.list("services")) == ([], [])


def test_a_deadline_fails_the_job_and_its_time_to_live_deletes_it(api, operator):
    policy = {"activeDeadlineSeconds": 100, "ttlSecondsAfterFinished": 50, "cleanPodPolicy": "All"}
    running(api, operator, job(policy=policy))
    operator.advance(101)
    operator.settle()
    assert conditions(api)["Failed"] == "True"
    assert api.list("pods") == []
    operator.advance(52)
    operator.settle()
    assert api.list("pytorchjobs") == []


def test_a_suspended_job_has_no_pods_until_it_is_resumed(api, operator):
    running(api, operator, job())
    api.patch("pytorchjobs", NAMESPACE, "a", {"spec": {"runPolicy": {"suspend": True}}})
    operator.settle()
    assert conditions(api) == {"Created": "True", "Running": "False", "Suspended": "True"}
    assert api.list("pods") == []
    api.patch("pytorchjobs", NAMESPACE, "a", {"spec": {"runPolicy": {"suspend": False}}})
    operator.settle()
    assert conditions(api)["Suspended"] == "False"
    assert pods(api) == {W0: "Pending", W1: "Pending"}


def test_a_pod_can_be_kept_waiting(api, operator):
    api.put(job())
    operator.settle()
    operator.hold(W0, "ImagePullBackOff", "Back-off pulling image")
    operator.keep_unscheduled(W1, "0/1 nodes are available: 1 Insufficient cpu.")
    core = client.CoreV1Api(api.client())
    with pytest.raises(ApiException, match="trying and failing to pull image"):
        core.read_namespaced_pod_log(W0, NAMESPACE)
    first, second = core.list_namespaced_pod(NAMESPACE).items
    assert first.status.container_statuses[0].state.waiting.message == "Back-off pulling image"
    assert second.status.conditions[0].reason == "Unschedulable"
    assert core.read_namespaced_pod_log(W1, NAMESPACE) == ""


# Pods by script


def test_a_script_says_what_each_start_of_each_pod_does(api):
    called = []

    def script(pod):
        restarts = pod["status"]["containerStatuses"][0]["restartCount"]
        yield f"start {restarts}"
        if restarts == 0 and pod["metadata"]["name"] == W0:
            yield 1
        yield 0.02
        yield lambda: called.append(pod["metadata"]["name"])
        yield 0 if restarts else 0.5

    with TrainingOperator(api, script=script, restart_delay=0.01):
        api.put(job())
        eventually(lambda: "Succeeded" in conditions(api))
    assert set(called) == {W0, W1}
    core = client.CoreV1Api(api.client())
    assert core.read_namespaced_pod_log(W0, NAMESPACE) == "start 1\n"
    assert core.read_namespaced_pod_log(W0, NAMESPACE, previous=True) == "start 0\n"


def test_an_error_of_the_operator_is_raised_at_the_end(api):
    def script(pod):
        raise RuntimeError("in the script")

    operator = TrainingOperator(api, script=script).__enter__()
    api.put(job())
    eventually(lambda: not operator._thread.is_alive())
    with pytest.raises(RuntimeError, match="in the script"):
        operator.close()


# Pods as processes

MEET = """
import os, socket, sys
name, host = os.environ["POD_NAME"], os.environ["PET_RDZV_ENDPOINT"]
host, port = host.split(":")
print("I am", name, sys.argv[1], flush=True)
if name.endswith("0"):
    with socket.create_server((host, int(port))) as server:
        peer, _ = server.accept()
        print("met", peer.recv(99).decode())
        peer.close()
else:
    for _ in range(500):
        try:
            peer = socket.create_connection((host, int(port)))
            break
        except ConnectionRefusedError:
            import time; time.sleep(0.01)
    peer.sendall(name.encode())
    peer.close()
"""
FIELDS = [
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {
        "name": "INDEX",
        "valueFrom": {
            "fieldRef": {"fieldPath": "metadata.labels['training.kubeflow.org/replica-index']"}
        },
    },
]


def with_args(obj, *args):
    container = obj["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
    container["args"] += args
    container["env"] = FIELDS
    return obj


def test_two_real_pods_meet(api):
    with TrainingOperator(api, real=True, replace={"/mnt/data": "/here"}):
        api.put(with_args(job(code=MEET, elastic=True), "$(INDEX) $$(INDEX) $(NONE) /mnt/data"))
        eventually(
            lambda: (
                "Succeeded" in conditions(api) and pods(api) == {W0: "Succeeded", W1: "Succeeded"}
            )
        )
    core = client.CoreV1Api(api.client())
    assert (
        core.read_namespaced_pod_log(W0, NAMESPACE)
        == f"I am {W0} 0 $(INDEX) $(NONE) /here\nmet {W1}\n"
    )
    assert core.read_namespaced_pod_log(W1, NAMESPACE) == f"I am {W1} 1 $(INDEX) $(NONE) /here\n"


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)"], start_new_session=True)
print("up", flush=True)
while True:
    time.sleep(0.01)
"""


def processes_of(uid):
    found = []
    for process in psutil.process_iter():
        try:
            found += [process.pid] * (process.environ().get(MARK) == uid)
        except (psutil.Error, OSError):
            continue
    return found


def test_a_deleted_real_pod_is_asked_to_stop_then_killed_with_all_it_started(api):
    core = client.CoreV1Api(api.client())
    with TrainingOperator(api, real=True, grace=0.1):
        api.put(job(code=STUBBORN, workers=1))
        eventually(
            lambda: (
                pods(api) == {W0: "Running"} and "up" in core.read_namespaced_pod_log(W0, NAMESPACE)
            )
        )
        uid = api.get("pods", NAMESPACE, W0)["metadata"]["uid"]
        assert len(processes_of(uid)) == 2
        followed = core.read_namespaced_pod_log(W0, NAMESPACE, follow=True, _preload_content=False)
        api.store.delete(api.store.kind_of("pytorchjobs"), NAMESPACE, "a")
        assert followed.read() == b"up\nno\n"
        eventually(lambda: not api.list("pods"))
        assert processes_of(uid) == []


def test_no_process_outlives_the_operator(api):
    with TrainingOperator(api, real=True):
        api.put(job(code="import time; time.sleep(99)", workers=1))
        eventually(lambda: pods(api) == {W0: "Running"})
        uid = api.get("pods", NAMESPACE, W0)["metadata"]["uid"]
        assert processes_of(uid)
    assert processes_of(uid) == []


def test_a_real_pod_that_fails_tells_its_last_words(api):
    obj = job(code="import sys; sys.exit('out of luck')", workers=1, restart="Never")
    container_spec = obj["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][
        0
    ]
    container_spec |= {
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "command": [sys.executable],
    }
    with TrainingOperator(api, real=True):
        api.put(obj)
        eventually(lambda: "Failed" in conditions(api))
    end = container(api, W0)["state"]["terminated"]
    assert (end["exitCode"], end["reason"], end["message"]) == (1, "Error", "out of luck\n")


def test_a_real_pod_whose_command_is_not_there_can_not_start(api):
    obj = job(workers=1, restart="Never")
    obj["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["command"] = [
        "/no/such/command"
    ]
    with TrainingOperator(api, real=True):
        api.put(obj)
        eventually(lambda: "Failed" in conditions(api))
    assert container(api, W0)["state"]["terminated"]["reason"] == "StartError"


# TrainJobs


def test_a_train_job_runs_its_nodes_and_is_complete(api):
    with TrainingOperator(api, real=True):
        api.put(
            train_job(
                code="import os; print(os.environ['PET_NODE_RANK'], os.environ['PET_MASTER_ADDR'])"
            )
        )
        eventually(lambda: conditions(api, "TrainJob").get("Complete") == "True")
    core = client.CoreV1Api(api.client())
    found = core.list_namespaced_pod(
        NAMESPACE, label_selector="jobset.sigs.k8s.io/jobset-name=a"
    ).items
    assert [pod.metadata.name for pod in found] == ["a-node-0-0", "a-node-0-1"]
    assert core.read_namespaced_pod_log("a-node-0-1", NAMESPACE) == "1 127.0.0.1\n"


def test_a_train_job_whose_containers_keep_failing_fails(api, operator):
    running(api, operator, train_job())
    for _ in range(7):
        assert "Failed" not in conditions(api, "TrainJob")
        operator.finish("a-node-0-1", 1)
        operator.settle()
    assert is_true(api.get("TrainJob", NAMESPACE, "a")["status"], "Failed")
    assert api.list("pods") == []


def test_a_suspended_train_job_has_no_pods(api, operator):
    running(api, operator, train_job())
    api.patch("trainjobs", NAMESPACE, "a", {"spec": {"suspend": True}})
    operator.settle()
    assert (conditions(api, "TrainJob"), api.list("pods")) == ({"Suspended": "True"}, [])
