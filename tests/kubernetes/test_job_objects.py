"""The objects that are sent to a cluster, against the schemas of their kinds and the rules for their pods.

`CITEFLOW_GOLDEN=1 pytest tests/kubernetes/test_job_objects.py` writes the files in golden/ anew.
"""

import copy
import dataclasses
import json
import os
import re
import shlex

import jsonschema
import kubernetes_validate
import pytest
import yaml
from clusters import SCHEMAS, placement
from hypothesis import given
from hypothesis import strategies as st
from manifests.pod_security import violations

from citeflow.cli import main
from citeflow.errors import ConfigError
from citeflow.kubernetes.identity import RUN_ID, Owner
from citeflow.kubernetes.job_objects import PYTORCH_JOB, SPEC_SHA256, TRAIN_JOB, render
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.pods import METRICS_PORT, PORT

KINDS = (PYTORCH_JOB, TRAIN_JOB)
VERSIONS = ("1.31", "1.34")
GPU_NODES = (
    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    {
        "key": "spot",
        "operator": "Equal",
        "value": "true",
        "effect": "NoExecute",
        "tolerationSeconds": 30,
    },
)
SPECS = {
    "defaults": JobSpec(),
    "one worker": JobSpec(workers=1, cpu="500m", memory="2Gi", restarts=0, keep_hours=0),
    "GPUs": JobSpec(
        workers=4,
        gpus=8,
        cpu="16",
        memory="128Gi",
        shared_memory="16Gi",
        gpu_resource="amd.com/gpu",
    ),
    "a queue": JobSpec(queue="lab.users", deadline_hours=0.0001),
    "chosen nodes": JobSpec(
        node_selector={"cloud.google.com/gke-spot": "true"}, tolerations=GPU_NODES
    ),
    "many workers": JobSpec(workers=10_000, deadline_hours=8760, keep_hours=8760),
    "an image of one's own": JobSpec(
        image="registry.example:5000/lab/train@sha256:" + "0" * 64,
        image_pull_policy="Never",
        image_pull_secrets=("one", "two"),
        runtime="lab-torch",
    ),
    "several volumes": JobSpec(
        volumes={"citeflow-data": "/mnt/citeflow", "papers.v2": "/papers", "scratch": "/s"}
    ),
}
PLACES = {
    "a plain run": placement(),
    "a long name": placement(run_name="a" * 63, run_id="R" * 63),
    "a short name": placement(run_name="7", run_id="r_1.x", namespace="n"),
    "a step": placement(
        owner=Owner(name="citation-x7k2q-2104", uid="c0ffee00-1111-2222-3333-444455556666")
    ),
}
CASES = [(kind, spec, place) for kind in KINDS for spec in SPECS for place in PLACES]
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def job(request):
    """A job of each kind, for every sort of spec and of place."""
    kind, spec, place = request.param
    return render(kind, SPECS[spec], PLACES[place])


@pytest.fixture(params=KINDS)
def kind(request):
    """A kind of job."""
    return request.param


# The schemas


def strict(schema):
    """The schema of a custom resource, which lets nothing through that the server would drop or misread."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    new = {key: strict(value) for key, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if (
        isinstance(schema.get("properties"), dict)
        and schema.get("type") == "object"
        and not is_open
    ):
        new["additionalProperties"] = False
    if schema.get("format") == "int32":
        new |= {
            "minimum": schema.get("minimum", -(2**31)),
            "maximum": schema.get("maximum", 2**31 - 1),
        }
    return new


def repeated(value, schema, path=""):
    """Entries of lists that the schema takes for maps, which have the keys of another entry."""
    if isinstance(value, dict):
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            yield from repeated(inner, known if isinstance(known, dict) else {}, f"{path}.{name}")
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        seen = [tuple(entry.get(key) for key in keys) for entry in value] if keys else []
        yield from (
            f"{path}: {entry} is there twice" for entry in set(seen) if seen.count(entry) > 1
        )
        for index, inner in enumerate(value):
            yield from repeated(inner, schema.get("items", {}), f"{path}[{index}]")


def findings(job):
    """What the schema of the kind has against an object."""
    found = list(SCHEMAS.glob(f"{job['kind'].lower()}.*.json"))
    if not found:
        pytest.skip("the schemas of the kinds are not here")
    stored = json.loads(found[0].read_text())
    assert (stored["apiVersion"], stored["kind"]) == (job["apiVersion"], job["kind"])
    errors = jsonschema.Draft202012Validator(strict(stored["openAPIV3Schema"])).iter_errors(job)
    told = [f"{error.json_path}: {error.message}" for error in errors]
    return [*told, *repeated(job, stored["openAPIV3Schema"])]


@pytest.mark.fault("F34")
def test_an_object_fits_the_schema_of_its_kind_and_has_nothing_else(job, figure):
    told = findings(job)
    figure(objects_checked=1, findings=len(told))
    assert told == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.nprocPerNodes", "1"),
        ("spec.runPolicy.backoffLimits", 3),
        ("spec.runPolicy.backoffLimit", "3"),
        ("spec.runPolicy.activeDeadlineSeconds", 1.5),
        ("spec.elasticPolicy.minReplicas", 2**31),
        ("spec.pytorchReplicaSpecs.Worker.template.spec.containers", [{"image": "i"}]),
        ("spec.pytorchReplicaSpecs.Worker.template.spec.automountToken", False),
    ],
)
@pytest.mark.fault("F34")
def test_a_wrong_field_would_be_found(path, value, figure):
    job = render(PYTORCH_JOB, JobSpec(), placement())
    *parents, last = path.split(".")
    place = job
    for name in parents:
        place = place[name]
    place[last] = value
    assert len(findings(job)) == 1
    figure(wrong_fields_found=1)


def test_an_entry_that_is_there_twice_would_be_found():
    job = render(TRAIN_JOB, JobSpec(), placement())
    job["spec"]["runtimePatches"] *= 2
    job["spec"]["trainer"]["env"] *= 2
    assert {told.partition(":")[0] for told in findings(job)} == {
        ".spec.runtimePatches",
        ".spec.trainer.env",
    }


def test_an_object_is_plain_data(job):
    assert json.loads(json.dumps(job)) == yaml.safe_load(yaml.safe_dump(job)) == job
    assert "null" not in json.dumps(job)


# The pods


def pod_of(job):
    """A pod as the operator, or the runtime `torch-distributed`, makes it of the job."""
    metadata = {
        "name": f"{job['metadata']['name']}-worker-0",
        "namespace": job["metadata"]["namespace"],
    }
    if job["kind"] == PYTORCH_JOB:
        replicas = job["spec"]["pytorchReplicaSpecs"]["Worker"]
        template = copy.deepcopy(replicas["template"])
        spec = {**template["spec"], "restartPolicy": replicas["restartPolicy"]}
    else:
        (patch,) = job["spec"]["runtimePatches"]
        (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        template = copy.deepcopy(node["template"]["spec"]["template"])
        trainer = job["spec"]["trainer"]
        own = {name: trainer[name] for name in ("image", "command", "args", "env")}
        (container,) = template["spec"]["containers"]
        container = {
            "name": "node",
            "image": "pytorch",
            **container,
            **own,
            "resources": trainer["resourcesPerNode"],
        }
        spec = {**template["spec"], "containers": [container], "restartPolicy": "OnFailure"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], **metadata},
        "spec": spec,
    }


def container_of(job):
    """The only container of a pod of the job."""
    spec = pod_of(job)["spec"]
    assert "initContainers" not in spec
    (container,) = spec["containers"]
    return container


def argv_of(job):
    container = container_of(job)
    return [*container["command"], *container["args"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_fits_the_schema_of_pods(job, version):
    kubernetes_validate.validate(pod_of(job), version, strict=True)


def test_an_unknown_field_of_a_pod_would_be_found(kind):
    pod = pod_of(render(kind, JobSpec(), placement()))
    pod["spec"]["containers"][0]["imagePullPolicies"] = "Never"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, VERSIONS[-1], strict=True)


@pytest.mark.fault("F37")
def test_a_pod_may_run_where_restricted_is_enforced(job, figure):
    pod = pod_of(job)
    told = violations(pod["spec"], pod["metadata"].get("annotations"))
    figure(pods_checked=1, rejected=int(bool(told)))
    assert told == []


def test_a_pod_runs_as_the_user_that_owns_the_volume(job):
    context = pod_of(job)["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (1000, 1000, 1000)


def test_a_container_writes_only_to_its_volumes_and_finds_places_for_what_libraries_write(job):
    container, spec = container_of(job), pod_of(job)["spec"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert len(mounted) == len(container["volumeMounts"])
    assert {"/tmp", "/dev/shm"} <= set(mounted)
    assert not any(mount.get("readOnly") for mount in container["volumeMounts"])
    assert sorted(mounted.values()) == sorted(volume["name"] for volume in spec["volumes"])
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    places = ("HOME", "MPLCONFIGDIR", "TORCHINDUCTOR_CACHE_DIR")
    assert all(env[name] == "/tmp" or env[name].startswith("/tmp/") for name in places)


def test_shared_memory_is_memory_and_bounded(job):
    volumes = {volume["name"]: volume for volume in pod_of(job)["spec"]["volumes"]}
    assert volumes["shared-memory"]["emptyDir"]["medium"] == "Memory"
    assert volumes["shared-memory"]["emptyDir"]["sizeLimit"]
    assert volumes["tmp"]["emptyDir"]["sizeLimit"]


def test_a_pod_asks_for_what_it_may_use(job):
    resources = container_of(job)["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= set(resources["requests"])


def test_gpus_are_asked_for_by_the_name_that_the_cluster_has_for_them(kind):
    job = render(kind, SPECS["GPUs"], placement())
    assert container_of(job)["resources"]["limits"]["amd.com/gpu"] == "8"
    assert "--nproc-per-node=8" in argv_of(job)
    assert "gpu" not in json.dumps(render(kind, JobSpec(), placement()))


def test_a_pod_of_a_pytorchjob_gets_no_token():
    pod = pod_of(render(PYTORCH_JOB, JobSpec(), placement()))
    assert pod["spec"]["automountServiceAccountToken"] is False
    assert pod["spec"]["enableServiceLinks"] is False


def test_no_sidecar_comes_to_a_pod_by_label_and_by_annotation(job):
    metadata = pod_of(job)["metadata"]
    assert metadata["labels"]["sidecar.istio.io/inject"] == "false"
    assert metadata["annotations"]["sidecar.istio.io/inject"] == "false"


def test_nothing_is_pulled_that_was_not_asked_for(job):
    images = re.findall(r'"image": "([^"]+)"', json.dumps(job))
    assert len(images) == 1
    assert "alpine" not in json.dumps(job)
    assert not images[0].endswith(":latest")


def test_every_object_is_found_by_run_and_by_part(job):
    for labels in (job["metadata"]["labels"], pod_of(job)["metadata"]["labels"]):
        assert labels["app.kubernetes.io/part-of"] == "citeflow"
        assert labels["app.kubernetes.io/component"] == "train"
        assert labels["app.kubernetes.io/managed-by"] == "citeflow"
        assert 1 <= len(labels[RUN_ID]) <= 63


@pytest.mark.parametrize(
    ("cpu", "gpus", "threads"),
    [("4", 0, 4), ("500m", 0, 1), ("8", 4, 2), ("2", 4, 1), ("3.9", 0, 3)],
)
def test_threads_are_those_of_the_cores_that_a_process_has(kind, cpu, gpus, threads):
    container = container_of(render(kind, JobSpec(cpu=cpu, gpus=gpus), placement()))
    assert {entry["name"]: entry.get("value") for entry in container["env"]}[
        "OMP_NUM_THREADS"
    ] == str(threads)


def test_an_address_that_an_argument_names_is_set_before_all_else(job):
    assert container_of(job)["env"][0] == {
        "name": "POD_IP",
        "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}},
    }
    assert [word for word in argv_of(job) if "$" in word] == ["--local-addr=$(POD_IP)"]


def test_nothing_of_an_argument_is_read_by_a_shell(job):
    assert argv_of(job)[:3] == ["python3", "-m", "torch.distributed.run"]
    *_, dash_m, module, path = argv_of(job)
    assert (dash_m, module) == ("-m", "citeflow.training.worker")
    assert re.fullmatch("/mnt/citeflow/runs/[-a-z0-9]+/job.json", path)


# The job around them


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_pytorchjob_ends_by_itself_and_starts_pods_again(spec):
    job = render(PYTORCH_JOB, spec, placement())["spec"]
    policy = job["runPolicy"]
    assert list(job["pytorchReplicaSpecs"]) == ["Worker"]
    assert job["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "OnFailure"
    assert job["pytorchReplicaSpecs"]["Worker"]["replicas"] == spec.workers
    assert (policy["cleanPodPolicy"], policy["backoffLimit"]) == ("Running", spec.restarts)
    assert policy["activeDeadlineSeconds"] == pytest.approx(3600 * spec.deadline_hours, abs=1)
    assert policy["activeDeadlineSeconds"] >= 1
    assert policy["ttlSecondsAfterFinished"] == pytest.approx(3600 * spec.keep_hours, abs=1)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_trainjob_ends_by_itself(spec):
    job = render(TRAIN_JOB, spec, placement())["spec"]
    assert job["activeDeadlineSeconds"] == pytest.approx(3600 * spec.deadline_hours, abs=1)
    assert job["runtimeRef"] == {"name": spec.runtime}
    assert (job["trainer"]["numNodes"], job["trainer"]["numProcPerNode"]) == (
        spec.workers,
        spec.processes,
    )


def flags_of(job):
    return dict(
        word.removeprefix("--").split("=", 1)
        for word in argv_of(job)
        if re.match(r"--\w[-\w]*=", word)
    )


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_arguments_of_torchrun_say_what_the_operator_says(spec):
    job = render(PYTORCH_JOB, spec, placement())
    elastic, flags = job["spec"]["elasticPolicy"], flags_of(job)
    name = job["metadata"]["name"]
    assert job["spec"]["nprocPerNode"] == flags["nproc-per-node"] == str(spec.processes)
    assert "nProcPerNode" not in elastic  # the webhook refuses it together with the other
    assert (elastic["minReplicas"], elastic["maxReplicas"]) == (spec.workers, spec.workers)
    assert flags["nnodes"] == str(spec.workers)
    assert flags["max-restarts"] == str(elastic["maxRestarts"]) == str(spec.restarts)
    assert flags["rdzv-backend"] == elastic["rdzvBackend"] == "c10d"
    assert (
        flags["rdzv-endpoint"]
        == f"{elastic['rdzvHost']}:{elastic['rdzvPort']}"
        == f"{name}-worker-0:{PORT}"
    )
    assert flags["rdzv-id"] == elastic["rdzvId"] == name


def test_the_operator_finds_its_container_and_its_port():
    container = container_of(render(PYTORCH_JOB, JobSpec(), placement()))
    assert container["name"] == "pytorch"
    assert container["ports"] == [
        {"containerPort": PORT, "name": "pytorchjob-port"},
        {"containerPort": METRICS_PORT, "name": "metrics"},
    ]
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_pods_of_a_trainjob_meet_at_its_first():
    job = render(TRAIN_JOB, JobSpec(), placement())
    name = job["metadata"]["name"]
    assert flags_of(job)["rdzv-endpoint"] == f"{name}-node-0-0.{name}:{PORT}"
    assert container_of(job)["name"] == "node"


def test_workers_wait_for_each_other_longer_than_the_kubelet_s_longest_pause(job):
    conf = dict(entry.split("=") for entry in flags_of(job)["rdzv-conf"].split(","))
    assert int(conf["join_timeout"]) > 300
    assert int(conf["read_timeout"]) > 300


def test_a_queue_is_asked_for_by_kueue_s_label(kind):
    assert (
        render(kind, SPECS["a queue"], placement())["metadata"]["labels"][
            "kueue.x-k8s.io/queue-name"
        ]
        == "lab.users"
    )
    assert "kueue" not in json.dumps(render(kind, JobSpec(), placement()))


def test_a_job_goes_with_the_pod_of_its_step(kind):
    job = render(kind, JobSpec(), PLACES["a step"])
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": PLACES["a step"].owner.name,
        "uid": PLACES["a step"].owner.uid,
    }
    assert "ownerReferences" not in render(kind, JobSpec(), placement())["metadata"]


# Names


@given(run_name=NAMES, workers=st.integers(1, 10_000), kind=st.sampled_from(KINDS))
def test_the_names_of_a_job_and_of_all_that_it_makes_are_names(run_name, workers, kind):
    name = placement(run_name=run_name).name
    # The service of a pod has the pod's name; JobSet tries the name of the last pod with five letters of the Job's own.
    made = (
        f"{name}-worker-{workers - 1}"
        if kind == PYTORCH_JOB
        else f"{name}-node-0-{workers - 1}-abcde"
    )
    for text in (name, made):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", text)
        assert len(text) <= 63


@given(first=st.tuples(NAMES, NAMES), second=st.tuples(NAMES, NAMES))
def test_jobs_have_the_same_name_only_if_they_write_to_the_same_folder(first, second):
    names = [
        placement(run_id=run_id, run_name=run_name).name for run_id, run_name in (first, second)
    ]
    assert (names[0] == names[1]) == (first[1] == second[1])


def test_names_that_begin_alike_and_are_cut_differ():
    assert placement(run_name="a" * 62 + "b").name != placement(run_name="a" * 62 + "c").name


@pytest.mark.parametrize("namespace", ["", "Kubeflow", "a_b", "a/b", "-a", "a" * 64])
def test_a_namespace_that_can_not_be_is_refused(kind, namespace):
    with pytest.raises(ConfigError, match="namespace"):
        render(kind, JobSpec(), placement(namespace=namespace))


@pytest.mark.parametrize("run_id", ["", "a b", "-a", "a/b", "a" * 64, "{{workflow.uid}}", "a\n"])
def test_a_run_id_that_can_be_no_label_is_refused(kind, run_id):
    with pytest.raises(ConfigError, match="run id"):
        render(kind, JobSpec(), placement(run_id=run_id))


# The digest of what was asked for


OTHERS = {
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
    "restarts": 9,
}
UNTOLD = {
    PYTORCH_JOB: {"gpu_resource", "runtime"},
    TRAIN_JOB: {"gpu_resource", "image_pull_policy", "keep_hours"},
}
"""What a kind of job does not say; the name of GPUs counts only where there are some."""


def digest(kind, spec=None, **place):
    return render(kind, spec or JobSpec(), placement(**place))["metadata"]["annotations"][
        SPEC_SHA256
    ]


def test_the_digest_is_the_same_each_time_and_whoever_owns_the_job(kind):
    assert re.fullmatch(r"[0-9a-f]{64}", digest(kind))
    assert digest(kind) == digest(kind) == digest(kind, owner=Owner(name="a", uid="b"))


@pytest.mark.parametrize(
    "change",
    [
        {"run_id": "x"},
        {"run_name": "x"},
        {"namespace": "x"},
        {"job_file": "/x"},
        {"task_sha256": "x"},
    ],
)
def test_the_digest_tells_every_place_from_the_others(kind, change):
    assert digest(kind, **change) != digest(kind)


def test_the_digest_tells_every_setting_from_the_others(kind):
    others = OTHERS if kind == PYTORCH_JOB else {**OTHERS, "runtime": "other"}
    changed = {name: digest(kind, JobSpec(**{name: value})) for name, value in others.items()}
    same = {name for name, found in changed.items() if found == digest(kind)}
    assert same == UNTOLD[kind] & set(others)
    assert {field.name for field in dataclasses.fields(JobSpec)} - set(others) <= UNTOLD[kind]
    assert digest(kind, JobSpec(gpus=1)) != digest(
        kind, JobSpec(gpus=1, gpu_resource="amd.com/gpu")
    )


# What the command prints


@pytest.mark.fault("F34")
@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_the_golden_file_is_what_the_command_prints(
    launcher, checkout, figure, monkeypatch, capsys
):
    for name in ("CITEFLOW_POD_NAME", "CITEFLOW_POD_UID", "KFP_POD_NAME", "KFP_POD_UID"):
        monkeypatch.delenv(name, raising=False)
    argv = [
        "launch",
        "/mnt/citeflow/prepared/c0ffee",
        "--launcher",
        launcher,
        "--data-root",
        "/mnt/citeflow",
    ]
    argv += ["--run-name", "hepth-6b2c1e9e", "--run-id", "6b2c1e9e-1111-2222-3333-444455556666"]
    argv += ["--namespace", "kubeflow", "--job", "{cpu: 4, memory: 16Gi, queue: lab}", "--dry-run"]
    assert main(argv) == 0
    text = f"# Generated by `{shlex.join(['citeflow', *argv])}`; do not edit.\n{capsys.readouterr().out}"
    golden = checkout / "tests" / "kubernetes" / "golden" / f"{launcher}.yaml"
    if os.environ.get("CITEFLOW_GOLDEN") == "1":
        golden.write_text(text)
    figure(golden_files=1, findings=int(golden.read_text() != text))
    assert golden.read_text() == text


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_what_the_command_prints_fits_the_schema(launcher, checkout):
    assert (
        findings(
            yaml.safe_load(
                (checkout / "tests" / "kubernetes" / "golden" / f"{launcher}.yaml").read_text()
            )
        )
        == []
    )
