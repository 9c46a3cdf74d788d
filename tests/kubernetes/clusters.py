"""Citeflow's way to a cluster in memory, and what it sends there."""

import time
from pathlib import Path

from kubernetes import client as k8s

from citeflow.kubernetes import job_objects
from citeflow.kubernetes.client import Api
from citeflow.kubernetes.identity import JobIdentity, Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.watcher import Launch

NAMESPACE = "kubeflow"
SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "schemas"


def brief(seconds: float) -> None:
    """A pause as short as a test can bear."""
    time.sleep(min(seconds, 0.02))


def connect(url: str, **given) -> Api:
    """Citeflow's way to a cluster at this address."""
    configuration = k8s.Configuration(host=url)
    configuration.retries = False
    return Api(
        client=k8s.ApiClient(configuration),
        namespace=NAMESPACE,
        **{"sleep": brief, "patience_s": 5.0, **given},
    )


def placement(**given) -> JobIdentity:
    values = {
        "namespace": NAMESPACE,
        "run_id": "6b2c1e9e-1111-2222-3333-444455556666",
        "run_name": "hepth-6b2c1e9e",
        "owner": None,
    }
    values |= given
    return JobIdentity(
        **{"job_file": f"/mnt/citeflow/runs/{values['run_name']}/job.json", **values}
    )


def owner(kube, name: str) -> Owner:
    """The pod of a step."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}}
    made = kube.put({**pod, "spec": {"containers": [{"name": "main", "image": "i"}]}})
    return Owner(name=name, uid=made["metadata"]["uid"])


def launch_of(
    api: Api, run_dir: Path, *, kind=job_objects.PYTORCH_JOB, spec=None, is_complete=None, **given
) -> Launch:
    """A launch whose model is the file `model` in the folder of the run."""
    job = job_objects.render(kind, spec or JobSpec(), placement(**given))
    is_complete = is_complete or (run_dir / "model").exists
    return Launch(api=api, job=job, run_dir=run_dir, is_complete=is_complete)
