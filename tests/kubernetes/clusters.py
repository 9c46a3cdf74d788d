"""A client of the cluster in memory, and what tests send there."""

import time
from pathlib import Path

from kubernetes import client as k8s

from citeflow.errors import TrainingError
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.identity import JobIdentity, Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.watcher import JobWatcher
from citeflow.paths import RunPaths

NAMESPACE = "kubeflow"
RUN_ID = "6b2c1e9e-1111-2222-3333-444455556666"
SHARED = Path(__file__).resolve().parents[3] / "shared"
PYTORCHJOB = LAUNCHERS["pytorchjob"]
TRAINJOB = LAUNCHERS["trainjob"]
RAYJOB = LAUNCHERS["ray"]


def pause(seconds):
    """A pause as short as a test can bear."""
    time.sleep(min(seconds, 0.02))


def connect(url, **options):
    configuration = k8s.Configuration(host=url)
    configuration.retries = False
    options = {"sleep": pause, "patience_s": 5.0, **options}
    return KubeClient(api=k8s.ApiClient(configuration), namespace=NAMESPACE, **options)


def close(client):
    client.api.close()
    client.api.rest_client.pool_manager.clear()


def identity(**changes):
    values = {"namespace": NAMESPACE, "run_id": RUN_ID, "run_name": "hepth-6b2c1e9e"} | changes
    job_file = f"/mnt/citeflow/runs/{values['run_name']}/job.json"
    return JobIdentity(**{"job_file": job_file, **values})


def owner(kube, name):
    """Create the pod of a step."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}}
    made = kube.put({**pod, "spec": {"containers": [{"name": "main", "image": "i"}]}})
    return Owner(name=name, uid=made["metadata"]["uid"])


def watcher_of(
    client,
    root,
    *,
    launcher=PYTORCHJOB,
    spec=None,
    is_complete=None,
    clock=time.monotonic,
    **changes,
):
    """Return a watcher whose model is the file `model` in the folder of the run."""
    run = RunPaths(Path(root), "run")
    run.folder.mkdir(parents=True, exist_ok=True)
    spec = spec or JobSpec()
    return JobWatcher(
        client=client,
        launcher=launcher,
        spec=spec,
        job=launcher.render(spec, identity(**changes)),
        run=run,
        is_complete=is_complete or run.model.exists,
        clock=clock,
        out_of_memory=lambda: TrainingError("out of memory", f"limit {spec.pod_memory}"),
    )


def eventually(condition, within_s=60):
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found
