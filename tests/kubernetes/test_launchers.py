"""The rendered jobs, against the schemas of their kinds and the rules for their pods.

`CITEFLOW_GOLDEN=1 pytest tests/kubernetes/test_launchers.py` writes the files in golden/ again.
"""

import copy
import itertools
import json
import os
import re
import shlex
from datetime import timedelta

import jsonschema
import kuberay
import kubernetes_validate
import pytest
import yaml
from clusters import NAMESPACE, PYTORCHJOB, RAYJOB, SHARED, TRAINJOB, identity
from fakes.operator import TrainingOperator
from hypothesis import given
from hypothesis import strategies as st
from manifests.pod_security import violations
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler
from torch.distributed.elastic.rendezvous.utils import _parse_rendezvous_config

from citeflow.errors import ConfigError
from citeflow.kubernetes.identity import RUN_ID, Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.job_status import SPEC_SHA256
from citeflow.kubernetes.pod_template import (
    JOIN_TIMEOUT_S,
    KEEP_ALIVE_S,
    LOST_SIGNS,
    RENDEZVOUS_PORT,
)
from citeflow.training.ray_launch import driver_parser

STEP = Owner(name="citation-x7k2q-2104", uid="c0ffee00-1111-2222-3333-444455556666")
CASES = {
    "defaults": (JobSpec(), identity()),
    "one worker": (
        JobSpec(workers=1, memory="2Gi", restarts=0, keep_hours=0),
        identity(run_name="7", run_id="r_1.x", namespace="n"),
    ),
    "GPUs": (
        JobSpec(workers=4, gpus=8, cpu="16", memory="128Gi", gpu_resource="amd.com/gpu"),
        identity(owner=STEP),
    ),
    "a queue": (JobSpec(queue="lab.users", deadline_hours=0.0001), identity(owner=STEP)),
    "chosen nodes": (
        JobSpec(
            node_selector={"cloud.google.com/gke-spot": "true"},
            tolerations=(
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoExecute"},
            ),
        ),
        identity(),
    ),
    "many workers": (
        JobSpec(workers=10_000, deadline_hours=8760, keep_hours=8760),
        identity(run_name="a" * 63, run_id="R" * 63),
    ),
    "another image": (
        JobSpec(
            image="registry.example:5000/lab/train@sha256:" + "0" * 64,
            image_pull_policy="Never",
            image_pull_secrets=("one", "two"),
            runtime="lab-torch",
            volumes={"papers.v2": "/papers", "scratch": "/s"},
        ),
        identity(),
    ),
}
NAMES = st.text("ab7-", max_size=61).map("7{}b".format)


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    return request.param


@pytest.fixture
def job(launcher, case):
    return launcher.render(*case)


def strict(schema):
    """Let the schema of a custom resource refuse what the server would drop or misread."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: strict(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not is_open:
        new["additionalProperties"] = False
    if schema.get("format") == "int32":
        new |= {"minimum": schema.get("minimum", -(2**31)), "maximum": 2**31 - 1}
    return new


def repeated(value, schema):
    """Yield the entries of lists of map type that have the keys of another entry."""
    if isinstance(value, dict):
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            yield from repeated(inner, known if isinstance(known, dict) else {})
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        seen = [tuple(entry.get(key) for key in keys) for entry in value] if keys else []
        yield from (entry for entry in set(seen) if seen.count(entry) > 1)
        for inner in value:
            yield from repeated(inner, schema.get("items", {}))


def schema_errors(job):
    if job["kind"] == "RayJob":
        versions = [kuberay.schema_errors(job, version) for version in kuberay.VERSIONS]
        return list(itertools.chain(*versions))
    found = list((SHARED / "schemas").glob(f"{job['kind'].lower()}.*.json"))
    if not found:
        pytest.skip("the schemas of the kinds are not here")
    stored = json.loads(found[0].read_text())
    assert (stored["apiVersion"], stored["kind"]) == (job["apiVersion"], job["kind"])
    schema = stored["openAPIV3Schema"]
    errors = jsonschema.Draft202012Validator(strict(schema)).iter_errors(job)
    return [*(error.message for error in errors), *repeated(job, schema)]


def pod_of(job):
    """Build a pod as the operator, or Trainer, does."""
    name = f"{job['metadata']['name']}-worker-0"
    metadata = {"name": name, "namespace": job["metadata"]["namespace"]}
    if job["kind"] == "PyTorchJob":
        replicas = job["spec"]["pytorchReplicaSpecs"]["Worker"]
        template = copy.deepcopy(replicas["template"])
        template["spec"]["restartPolicy"] = replicas["restartPolicy"]
    elif job["kind"] == "RayJob":
        template = kuberay.pods(job)["worker"]
        template["spec"]["containers"][0] |= {"command": ["ray"], "args": ["start"]}
    else:
        (patch,) = job["spec"]["runtimePatches"]
        (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        template = copy.deepcopy(node["template"]["spec"]["template"])
        trainer = job["spec"]["trainer"]
        (container,) = template["spec"]["containers"]
        container |= {key: trainer[key] for key in ("image", "command", "args", "env")}
        container["resources"] = trainer["resourcesPerNode"]
        template["spec"]["restartPolicy"] = "OnFailure"
    metadata |= template["metadata"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def container_of(job):
    (container,) = pod_of(job)["spec"]["containers"]
    return container


def argv_of(job):
    container = container_of(job)
    return [*container["command"], *container["args"]]


def flags_of(job):
    words = [word for word in argv_of(job) if re.match(r"--\w[-\w]*=", word)]
    return dict(word.removeprefix("--").split("=", 1) for word in words)


def environment_of(job):
    return {entry["name"]: entry.get("value") for entry in container_of(job)["env"]}


@pytest.mark.fault("F34")
def test_render_fits_the_schema_of_the_kind(job):
    assert json.loads(json.dumps(job)) == yaml.safe_load(yaml.safe_dump(job)) == job
    errors = schema_errors(job)
    assert errors == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.nprocPerNodes", "1"),
        ("spec.runPolicy.activeDeadlineSeconds", 1.5),
        ("spec.elasticPolicy.minReplicas", 2**31),
        ("spec.pytorchReplicaSpecs.Worker.template.spec.containers", [{"image": "i"}]),
    ],
)
def test_schema_finds_wrong_fields(path, value):
    job = PYTORCHJOB.render(JobSpec(), identity())
    *parents, last = path.split(".")
    part = job
    for name in parents:
        part = part[name]
    part[last] = value
    assert len(schema_errors(job)) == 1


def pods_of(job):
    """Return a pod of each kind that a job has."""
    others = kuberay.pods(job).values() if job["kind"] == "RayJob" else []
    head = {"apiVersion": "v1", "kind": "Pod"}
    return [pod_of(job), *({**head, **pod} for pod in others)]


def test_pod_fits_the_schema_of_pods(job):
    for version, pod in itertools.product(("1.31", "1.34"), pods_of(job)):
        kubernetes_validate.validate(pod, version, strict=True)


@pytest.mark.fault("F37")
def test_pod_is_restricted_and_labelled(job):
    for pod in pods_of(job):
        found = violations(pod["spec"], pod["metadata"]["annotations"])
        assert found == []
        (container,) = pod["spec"]["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert {"/tmp", "/dev/shm"} <= set(mounted)
        assert sorted(mounted.values()) == sorted(volumes)
        assert all(volumes[name]["emptyDir"]["sizeLimit"] for name in ("tmp", "shared-memory"))
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        for labels in (job["metadata"]["labels"], pod["metadata"]["labels"]):
            assert labels["app.kubernetes.io/managed-by"] == "citeflow"
            assert 1 <= len(labels[RUN_ID]) <= 63


def test_job_and_torchrun_agree(case):
    spec, place = case
    job = PYTORCHJOB.render(spec, place)
    assert flags_of(job)["nnodes"] == str(spec.workers)
    assert flags_of(job)["nproc-per-node"] == str(spec.processes)
    assert argv_of(job)[-1] == place.job_file
    # The kubelet's longest pause between restarts is 300 s.
    conf = dict(entry.split("=") for entry in flags_of(job)["rdzv-conf"].split(","))
    assert int(conf["join_timeout"]) > 300
    policy = job["spec"]["runPolicy"]
    workers = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert (workers["restartPolicy"], workers["replicas"]) == ("OnFailure", spec.workers)
    restarts = spec.workers * spec.restarts  # the operator counts those of all pods together
    assert (policy["cleanPodPolicy"], policy["backoffLimit"]) == ("Running", restarts)
    assert policy["activeDeadlineSeconds"] == max(1, round(3600 * spec.deadline_hours))
    assert policy["ttlSecondsAfterFinished"] == 3600 * spec.keep_hours
    elastic = job["spec"]["elasticPolicy"]
    assert "nProcPerNode" not in elastic  # the webhook refuses it together with nprocPerNode
    assert (elastic["minReplicas"], elastic["maxReplicas"]) == (spec.workers, spec.workers)
    endpoint = f"{place.name}-worker-0:{RENDEZVOUS_PORT}"
    assert flags_of(job)["rdzv-endpoint"] == endpoint
    assert f"{elastic['rdzvHost']}:{elastic['rdzvPort']}" == endpoint
    assert flags_of(job)["rdzv-id"] == elastic["rdzvId"] == place.name
    assert flags_of(job)["max-restarts"] == str(elastic["maxRestarts"]) == str(spec.restarts)
    job = TRAINJOB.render(spec, place)
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (spec.workers, spec.processes)
    assert job["spec"]["runtimeRef"] == {"name": spec.runtime}
    assert job["spec"]["activeDeadlineSeconds"] == policy["activeDeadlineSeconds"]
    host = f"{place.name}-node-0-0.{place.name}"
    assert flags_of(job)["rdzv-endpoint"] == f"{host}:{RENDEZVOUS_PORT}"


def test_torch_reads_the_settings_of_the_rendezvous(tmp_path):
    conf = flags_of(PYTORCHJOB.render(JobSpec(), identity()))["rdzv-conf"]
    given = _parse_rendezvous_config(conf) | {"store_type": "file"}
    endpoint = str(tmp_path / "store")
    handler = get_rendezvous_handler(RendezvousParameters("c10d", endpoint, "job", 2, 2, **given))
    settings = handler.settings
    assert settings.timeout.join == timedelta(seconds=JOIN_TIMEOUT_S)
    assert settings.keep_alive_interval == timedelta(seconds=KEEP_ALIVE_S)
    assert settings.keep_alive_max_attempt == LOST_SIGNS


def test_operator_of_kuberay_refuses_no_rayjob(case):
    refused = kuberay.refusals(RAYJOB.render(*case))
    assert refused == []


@pytest.mark.parametrize(
    ("path", "value", "versions", "refused"),
    [
        ("metadata.name", "9" * 48, (), "name"),
        ("spec.submissionModes", "HTTPMode", kuberay.VERSIONS, None),
        ("spec.activeDeadlineSeconds", 2**31, kuberay.VERSIONS, None),
        ("spec.activeDeadlineSeconds", 0, (), "activeDeadlineSeconds"),
        ("spec.rayClusterSpec.rayVersion", "2.51.1", (), "rayVersion"),
        ("spec.rayClusterSpec.authOptions.mode", "tokens", kuberay.VERSIONS, None),
        ("spec.rayClusterSpec.networkPolicy", {}, ("1.6.2",), None),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplicas", 9, (), "replicas"),
        ("spec.rayClusterSpec.workerGroupSpecs.0.priority", 1, ("1.6.2",), None),
        ("spec.rayClusterSpec.workerGroupSpecs.0.resources", {}, (), "rayStartParams"),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0, kuberay.VERSIONS, None),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.labels", "", (), "rayStartParams"),
    ],
)
def test_kuberay_refuses_wrong_rayjobs(path, value, versions, refused):
    job = RAYJOB.render(JobSpec(), identity())
    *parents, last = path.split(".")
    part = job
    for name in parents:
        part = part[int(name) if isinstance(part, list) else name]
    part[last] = value
    assert tuple(v for v in kuberay.VERSIONS if kuberay.schema_errors(job, v)) == versions
    assert kuberay.refusals(job) == ([refused] if refused else [])


def test_rayjob_asks_for_what_its_driver_needs(case):
    spec, place = case
    job = RAYJOB.render(spec, place)
    driver = shlex.split(job["spec"]["entrypoint"])
    module, options = driver[3], driver_parser().parse_args(driver[4:])
    assert (driver[:3], module) == (["python3", "-P", "-m"], "citeflow.training.ray_driver")
    assert (options.workers, options.processes) == (spec.workers, spec.processes)
    assert (options.restarts, options.gpus or 0) == (spec.restarts, spec.gpus)
    assert (str(options.job), options.address, options.here) == (place.job_file, "auto", None)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (group,) = cluster["workerGroupSpecs"]
    sizes = {group[name] for name in ("replicas", "minReplicas", "maxReplicas")}
    assert sizes == {spec.workers}
    # The driver asks for one CPU and these GPUs at each place, and finds them on workers alone.
    assert group["rayStartParams"]["num-cpus"] == "1"
    assert group["rayStartParams"].get("num-gpus", "0") == str(spec.gpus)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert job["spec"]["activeDeadlineSeconds"] == max(1, round(3600 * spec.deadline_hours))
    # Without it, KubeRay would keep the pods of a job that has ended, and Kueue refuse the job.
    assert job["spec"]["shutdownAfterJobFinishes"] is True


def test_rayjob_gives_torchrun_alone_what_ray_itself_must_not_have():
    names = {entry["name"] for entry in container_of(RAYJOB.render(JobSpec(), identity()))["env"]}
    assert not names & {"GLIBC_TUNABLES", "PYTHONSAFEPATH"}
    assert {"POD_IP", "OMP_NUM_THREADS", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"} <= names


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("lab.example/x/citeflow-train:0.1.0-python3.13", "lab.example/x/citeflow-ray:0.1.0-"),
        ("lab.example/mine:7", "lab.example/mine:7"),
    ],
)
def test_rayjob_takes_the_image_that_has_ray(image, expected):
    job = RAYJOB.render(JobSpec(image=image), identity())
    for pod in kuberay.pods(job).values():
        assert pod["spec"]["containers"][0]["image"].startswith(expected)


def test_rayjob_pins_the_ray_of_its_image(checkout):
    lock = (checkout / "docker" / "ray" / "requirements.txt").read_text()
    version = RAYJOB.render(JobSpec(), identity())["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version} " in lock


def test_rayjob_gives_ray_start_options_that_it_has_and_ports_of_their_own():
    scripts = pytest.importorskip("ray.scripts.scripts", reason="Ray is not installed")
    known = {name.removeprefix("--") for each in scripts.start.params for name in each.opts}
    cluster = RAYJOB.render(JobSpec(gpus=1), identity())["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        given = group["rayStartParams"]
        assert set(given) <= known
        ports = [int(value) for name, value in given.items() if name.endswith("-port")]
        assert len({*ports, 6379, 8265, 10001}) == len(ports) + 3  # which Ray takes itself
        assert not any(10002 <= port <= 19999 for port in ports)  # those of its workers


@pytest.mark.fault("F44")
@pytest.mark.parametrize("runtime", ["citeflow", "torch-distributed"])
def test_trainjob_of_eight_survives_the_loss_of_pod_0(kube, checkout, runtime):
    """When pod 0 is lost, the containers of the seven others end, and start again."""
    path = checkout / "manifests" / "trainer" / "runtime.yaml"
    kube.put(yaml.safe_load(path.read_text()))
    operator = TrainingOperator(kube, backoff=(0, 0))
    job = TRAINJOB.render(JobSpec(workers=8, runtime=runtime), identity())
    kube.put(job)
    operator.settle()
    names = [f"{job['metadata']['name']}-node-0-{index}" for index in range(8)]
    for name in names:
        operator.start(name)
    kube.remove("pods", NAMESPACE, names[0])
    for name in names[1:]:
        operator.finish(name, 1)
    operator.settle()
    end = TRAINJOB.status(kube.list("trainjobs")[0]).end
    assert (end is None) == (runtime == JobSpec().runtime)


def test_render_has_gpus_queue_and_owner_only_if_asked(launcher):
    plain = launcher.render(JobSpec(), identity())
    assert not re.search("gpu|kueue|ownerReferences|null", json.dumps(plain))
    gpus = launcher.render(*CASES["GPUs"])
    assert container_of(gpus)["resources"]["limits"]["amd.com/gpu"] == "8"
    reference = {"apiVersion": "v1", "kind": "Pod", "name": STEP.name, "uid": STEP.uid}
    assert gpus["metadata"]["ownerReferences"] == [reference]
    queued = launcher.render(*CASES["a queue"])
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "lab.users"


@pytest.mark.parametrize(
    ("cpu", "gpus", "threads"),
    [("4", 0, 4), ("500m", 0, 1), ("8", 4, 2), ("2", 4, 1), ("3.9", 0, 3), ("1e1", 0, 10)],
)
def test_threads_are_the_cores_of_a_process(launcher, cpu, gpus, threads):
    job = launcher.render(JobSpec(cpu=cpu, gpus=gpus), identity())
    assert environment_of(job)["OMP_NUM_THREADS"] == str(threads)


@given(names=st.tuples(NAMES, NAMES), workers=st.integers(1, 10_000))
def test_names_are_names_and_tell_folders_apart(names, workers):
    jobs = [identity(run_name=name).name for name in names]
    assert (jobs[0] == jobs[1]) == (names[0] == names[1])
    # JobSet tries the name of the last pod with five letters of the Job's own.
    for text in (f"{jobs[0]}-worker-{workers - 1}", f"{jobs[0]}-node-0-{workers - 1}-abcde"):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", text)
        assert len(text) <= 63


@pytest.mark.parametrize(
    ("what", "value"),
    [
        *(("namespace", text) for text in ("", "Kubeflow", "a/b", "-a", "a" * 64)),
        *(("run_id", text) for text in ("", "-a", "a" * 64, "{{workflow.uid}}", "a\n")),
    ],
)
def test_render_refuses_what_is_no_name(launcher, what, value):
    with pytest.raises(ConfigError, match=what.replace("_", " ")):
        launcher.render(JobSpec(), identity(**{what: value}))


CHANGES = {
    "workers": 3,
    "image": "other:1",
    "image_pull_policy": "Never",
    "image_pull_secrets": ("one",),
    "cpu": "2",
    "memory": "5Gi",
    "shared_memory": "2Gi",
    "gpus": 1,
    "volumes": {"citeflow-data": "/other"},
    "node_selector": {"a": "b"},
    "tolerations": ({"key": "a"},),
    "queue": "lab",
    "deadline_hours": 25.0,
    "keep_hours": 23.0,
    "unschedulable_minutes": 9.0,
    "priority_class": "other",
    "restarts": 9,
    "runtime": "other",
}
UNSAID = {
    "pytorchjob": {"runtime", "unschedulable_minutes"},
    "trainjob": {"image_pull_policy", "keep_hours", "priority_class", "unschedulable_minutes"},
    "ray": {"runtime", "keep_hours", "unschedulable_minutes"},
}
"""Settings that a kind of job has no field for."""


def test_digest_tells_every_setting_apart(launcher):
    def digest(spec=None, **changes):
        job = launcher.render(spec or JobSpec(), identity(**changes))
        return job["metadata"]["annotations"][SPEC_SHA256]

    plain = digest()
    assert set(JobSpec.model_fields) == {*CHANGES, "gpu_resource"}
    same = {name for name, value in CHANGES.items() if digest(JobSpec(**{name: value})) == plain}
    assert same == UNSAID[launcher.name]
    assert digest(owner=STEP) == plain
    for name in ("run_id", "run_name", "namespace", "job_file", "task_sha256"):
        assert digest(**{name: "x"}) != plain


@pytest.mark.fault("F34")
def test_render_golden_file(launcher, checkout):
    spec = JobSpec(cpu="4", memory="16Gi", queue="lab")
    job = launcher.render(spec, identity(task_sha256="0" * 64))
    command = "CITEFLOW_GOLDEN=1 pytest tests/kubernetes/test_launchers.py"
    text = f"# Generated by `{command}`; do not edit.\n" + yaml.safe_dump(job, sort_keys=False)
    golden = checkout / "tests" / "kubernetes" / "golden" / f"{launcher.name}.yaml"
    if os.environ.get("CITEFLOW_GOLDEN") == "1":
        golden.write_text(text)
    assert golden.read_text() == text
