"""The places where runs of the platform take place, as tests of their contract see them.

Each has a backend, and lets its runs write and end as a test says: processes of this machine, Jobs
and pipeline runs on a cluster in memory.
"""

import itertools
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from fakes import kfp_server
from fakes.controllers import Controllers
from fakes.kube_api import KubeApi
from kubernetes import client as k8s
from stand_in import LINES

from citeflow.files import save_chunks
from citeflow.kubeflow import client
from citeflow.kubernetes.client import KubeClient
from citeflow.platform.backends.base import Resources, Submitted
from citeflow.platform.backends.kubernetes import ClusterSettings, KubernetesBackend
from citeflow.platform.backends.local import LocalBackend

PROGRAM = (sys.executable, str(Path(__file__).with_name("stand_in.py")))
SMALL = Resources(cores=2, memory=4 * 2**30, disk=10 * 2**30)
WAIT_S = 60.0
STAGE = "app.kubernetes.io/component"


def submitted(name="first", **changes):
    values = {
        "id": f"id-of-{name}",
        "user": "alice",
        "name": name,
        "task": "citation",
        "dataset": "synthetic",
        "settings": "train: {minutes: 1}\n",
        "workers": 2,
        "cores": 2,
        "memory": 2**30,
        "attempt": 1,
    }
    return Submitted(**{**values, **changes})


def eventually(condition):
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Here:
    """Processes of this machine, in which a stand-in takes the part of `citeflow run`."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        self.backends = []
        self.backend = self.again()

    def again(self):
        """Return the backend of a server that was started again."""
        self.backends.append(LocalBackend(self.folder, program=PROGRAM))
        return self.backends[-1]

    def work(self, run):
        """Let an attempt that has started write some lines."""
        eventually(lambda: self.num_started(run) == run.attempt)
        eventually(lambda: LINES[-1] in self.backend.lines(run, 0)[-1])

    def succeed(self, run):
        self._say(run, "succeed")

    def fail(self, run, error):
        self._say(run, error)

    def num_started(self, run):
        """Count the attempts that took place."""
        return self.backend.lines(run, 0).count(f"12:00:00 {LINES[0]}")

    def close(self):
        for child in [each for backend in self.backends for each in backend._children.values()]:
            child.kill()
            child.wait()

    def _say(self, run, text):
        control = self.backend.folder(run.user) / "runs" / run.name / "control"
        save_chunks(control.with_suffix(".new"), [text.encode()])
        control.with_suffix(".new").rename(control)
        phases = ("succeeded", "failed")
        eventually(lambda: self.backend.state(run).phase in phases)


class OnCluster:
    """A cluster in memory. Subclasses say how an attempt is started there, and how it ends."""

    def __init__(self, folder, *without, **settings):
        self.kube = KubeApi(without=without).__enter__()
        self.controllers = Controllers(self.kube)
        configuration = k8s.Configuration(host=self.kube.url)
        configuration.retries = False
        self.api = k8s.ApiClient(configuration)
        self.settings = ClusterSettings(volumes=str(folder), **settings)
        self.backend = self.again()

    def again(self):
        client = KubeClient(
            api=self.api,
            namespace="kubeflow",
            patience_s=0.2,
            sleep=lambda seconds: time.sleep(min(seconds, 0.01)),
        )
        return KubernetesBackend(client, self.settings)

    def namespace(self, run):
        return f"citeflow-user-{run.user}"

    def close(self):
        self.api.close()
        self.api.rest_client.pool_manager.clear()
        self.kube.__exit__(None, None, None)


class Jobs(OnCluster):
    """Runs as Jobs."""

    def __init__(self, folder, monkeypatch):
        super().__init__(folder, "Profile", "LocalQueue")

    def job(self, run):
        return next(
            job
            for job in self.kube.list("jobs", self.namespace(run))
            if job["metadata"]["name"].endswith(f"-{run.attempt}")
            and job["metadata"].get("annotations", {}).get("citeflow.org/run") == run.name
        )

    def work(self, run):
        pod = f"{self.job(run)['metadata']['name']}-0"
        for line in LINES:
            self.kube.write_log(self.namespace(run), pod, f"12:00:00 {line}")

    def succeed(self, run):
        self.controllers.finish(self.job(run), 0)

    def fail(self, run, error):
        self.controllers.finish(self.job(run), 65, f"12:00:01 run fails\nerror: {error}\n")

    def num_started(self, run):
        names = [job["metadata"]["name"] for job in self.kube.list("jobs", self.namespace(run))]
        return len([name for name in names if name != "citeflow-volume"])

    def lose_answer(self):
        """Let the next start be carried out, and its answer be lost."""
        self.kube.drop(times=100, handled=True, verb="create", resource="jobs")

    def recover(self):
        self.kube._faults.clear()


class Pipelines(OnCluster):
    """Runs as runs of Kubeflow Pipelines, whose pods this class plays."""

    def __init__(self, folder, monkeypatch):
        kfp_server.speed_up(monkeypatch, folder)
        self.context = kfp_server.serving(multi_user=True, namespaces=("citeflow-user-alice",))
        self.kfp = self.context.__enter__()
        self.kfp.state.runs_for_real = True
        self.numbers = itertools.count()
        self.monkeypatch = monkeypatch
        super().__init__(folder, "LocalQueue", pipelines=self.kfp.url)

    def run_of(self, run):
        ending = f"{run.id} attempt {run.attempt}"
        (found,) = [each for each in self.kfp.state.runs if each.description.endswith(ending)]
        return found

    def work(self, run):
        found = self.run_of(run)
        found.state = "RUNNING"
        labels = {"pipeline/runid": found.run_id, "app.kubernetes.io/part-of": "citeflow"}
        step = self._pod(run, {**labels, STAGE: "train"}, "main")
        job = {"training.kubeflow.org/job-name": "job"}
        workers = [self._pod(run, {**labels, **job}, "pytorch", f"job-worker-{n}") for n in (0, 1)]
        self._write(run, step, f"12:00:00 {LINES[0]}")
        for rank, pod in enumerate(workers):
            line = f"12:00:00 {LINES[rank + 1]}"
            self._write(run, pod, line)
            self._write(run, step, f"worker-{rank} | {line}")

    def succeed(self, run):
        self._end(run, "SUCCEEDED", 0)

    def fail(self, run, error):
        message = json.dumps({"kind": "DataError", "what": error, "value": "", "hint": ""})
        tasks = [{"state": "FAILED", "display_name": "train", "child_tasks": []}]
        details = {"run_details": {"task_details": tasks}}
        found = self.run_of(run)
        found.run_details = kfp_server.to_model(details, "V2beta1Run").run_details
        self._end(run, "FAILED", 65, message)

    def num_started(self, run):
        return len([each for each in self.kfp.state.runs if each.display_name == run.name])

    def lose_answer(self):
        self.kfp.fail("POST", "/runs", "lost")
        self.monkeypatch.setattr(client, "LOOKUP_PAUSES_S", ())  # nor is it looked for

    def recover(self):
        pass

    def close(self):
        super().close()
        self.context.__exit__(None, None, None)

    def _end(self, run, state, exit_code, message=""):
        found = self.run_of(run)
        for pod in self.kube.list("pods", self.namespace(run)):
            if pod["metadata"]["labels"].get("pipeline/runid") == found.run_id:
                self.controllers.end_pod(pod, exit_code, message)
        found.state = state
        found.finished_at = datetime.now(UTC)

    def _pod(self, run, labels, container, name=""):
        name = name or f"step-{next(self.numbers)}"
        metadata = {"name": name, "namespace": self.namespace(run), "labels": labels}
        spec = {"containers": [{"name": container, "image": "i"}]}
        if self.kube.get("pods", self.namespace(run), name):
            self.kube.remove("pods", self.namespace(run), name)
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        self.controllers.start_pod(self.kube.put(pod))
        return name

    def _write(self, run, pod, line):
        self.kube.write_log(self.namespace(run), pod, line)


PLACES = {"local": Here, "jobs": Jobs, "pipelines": Pipelines}
