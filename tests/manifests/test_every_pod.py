"""The pods of the manifests, of a training's job, and of the pipeline's steps."""

import copy
import re

import pytest
import yaml
from kustomize import containers, pod_template, split_image
from pod_security import violations

ENDING = ("Job", "CronJob", "PyTorchJob", "TrainJob", "RayJob")
"""Kinds that run to an end, and need a deadline."""

SERVING = ("Deployment", "InferenceService")

BYTES = {"": 1, "Mi": 2**20, "Gi": 2**30, "m": 1e-3}


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)(\D*)", str(text)).groups()
    return float(number) * BYTES[unit]


def worker(job):
    """Return the pod of a job as a PodTemplate."""
    if job["kind"] == "RayJob":
        return job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]
    if job["kind"] == "PyTorchJob":
        return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    (patch,) = job["spec"]["runtimePatches"]
    (node,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template, trainer = copy.deepcopy(node["template"]["spec"]["template"]), job["spec"]["trainer"]
    (container,) = template["spec"]["containers"]
    container |= {"image": trainer["image"], "resources": trainer["resourcesPerNode"]}
    return template


def deadline(thing):
    spec = thing["spec"]
    for key in ("runPolicy", "jobTemplate"):
        spec = spec.get(key, spec)
    return spec.get("spec", spec).get("activeDeadlineSeconds", 0)


def findings(name, thing, parts):
    """Yield what the object of a pod lacks; `parts` are its containers."""
    for part in parts:
        resources = part.get("resources", {})
        for what in ("cpu", "memory"):
            asked, most = (
                quantity(resources.get(key, {}).get(what, 0)) for key in ("requests", "limits")
            )
            if not 0 < asked <= most:
                yield f"{name}: {what} is asked for as {asked} and limited to {most}"
        _, tag, digest = split_image(part["image"])
        if (not digest and tag in ("", "latest")) or (
            digest and not re.fullmatch("sha256:[0-9a-f]{64}", digest)
        ):
            yield f"{name}: {part['image']} may be another image tomorrow"
    if thing["kind"] in ENDING and deadline(thing) < 1:
        yield f"{name}: nothing ends it"
    if thing["kind"] in SERVING and not any("livenessProbe" in part for part in parts):
        yield f"{name}: nobody asks whether it lives"


SETTLED = {
    f"{{{{$.inputs.parameters['pipelinechannel--download-{name}']}}}}": amount
    for name, amount in (("memory", "1536Mi"), ("memory_limit", "6Gi"))
}
"""What the step Download puts in the place of outputs of its own, for a small dataset."""


def steps(checkout):
    """Yield the containers of the pipeline's steps, and the settings of Kubernetes for each."""
    spec, platform = yaml.safe_load_all(
        (checkout / "pipelines" / "citation" / "pipeline.yaml").read_text()
    )
    told = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, each in spec["deploymentSpec"]["executors"].items():
        known = each["container"]["resources"]
        resources = {
            key: {
                "cpu": known[f"resourceCpu{kind}"],
                "memory": SETTLED.get(
                    known[f"resourceMemory{kind}"], known[f"resourceMemory{kind}"]
                ),
            }
            for key, kind in (("requests", "Request"), ("limits", "Limit"))
        }
        yield name, {"image": each["container"]["image"], "resources": resources}, told[name]


@pytest.fixture(scope="session")
def objects(checkout, everything):
    """All objects that make pods, with their pods, by where they are from."""
    found = {
        (str(folder.relative_to(checkout)), thing["metadata"]["name"]): (
            thing,
            pod_template(thing),
            containers(thing),
        )
        for folder, things in everything.items()
        for thing in things
        if pod_template(thing)
    }
    for path in sorted((checkout / "tests" / "kubernetes" / "golden").glob("*.yaml")):
        job = yaml.safe_load(path.read_text())
        found[path.name, job["kind"]] = (job, worker(job), worker(job)["spec"]["containers"])
    return found


@pytest.mark.fault("F34")
def test_pods_have_requests_limits_ends_and_fixed_images(checkout, objects):
    found = [
        text for name, (thing, _, parts) in objects.items() for text in findings(name, thing, parts)
    ]
    made = list(steps(checkout))
    found += [text for name, part, _ in made for text in findings(name, {"kind": "step"}, [part])]
    kinds = {thing["kind"] for thing, _, _ in objects.values()}
    assert {"CronJob", "PyTorchJob", "TrainJob", "RayJob", *SERVING} <= kinds
    assert len(made) == 6
    assert found == []


@pytest.mark.fault("F37")
def test_pods_fit_restricted_with_a_read_only_root(objects):
    rejected = {}
    for name, (_, pod, parts) in objects.items():
        told = violations(pod["spec"], pod["metadata"].get("annotations"))
        told += [
            part["name"]
            for part in parts
            if not part["securityContext"].get("readOnlyRootFilesystem")
        ]
        rejected |= {name: told} if told else {}
    servers = [name for name in rejected if name[0] == "manifests/nfs-server"]
    assert set(rejected) == set(servers)
    assert len(servers) == 1


@pytest.mark.fault("F37")
def test_steps_run_as_user_1000(checkout):
    contexts = [told["securityContext"] for _, _, told in steps(checkout)]
    assert len(contexts) == 6
    for each in contexts:
        user = (each["runAsNonRoot"], each["runAsUser"], each["runAsGroup"])
        assert user == (True, "1000", "1000")
