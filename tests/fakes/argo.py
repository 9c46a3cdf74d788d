"""Argo Workflows as a stock Kubeflow Pipelines sets it up, for the servers in memory.

A run's tasks are resolved by kfp.local in a process of its own, which asks for a pod where
kfp.local would start one. A pod that is lost is made again, a step that crashes is final.
"""

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from kfp_server_api import models

from citeflow.kubeflow.pipeline_spec import tasks

from .kube_api import ApiError, container_status
from .processes import INHERITED

RETRIES = 2
"""Of a pod that is lost."""

ENDED = ("Succeeded", "Failed")


@dataclass(kw_only=True)
class Workflow:
    """A run, as Argo executes it."""

    run: object
    spec: str
    platform: dict
    """The platform's part of the executors, by their names."""
    process: subprocess.Popen | None = None
    pods: dict = field(default_factory=dict)
    """Names of the last pods, by stage."""
    failed: set = field(default_factory=set)
    is_terminated: bool = False


class Argo:
    """`with Argo(kfp, kube, kubelet, root):` executes each run that is created."""

    def __init__(self, kfp, kube, kubelet, root):
        self.kfp = kfp
        self.kube = kube
        self.kubelet = kubelet
        self.root = root
        self.workflows = {}
        self._threads = []
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        kfp.state.runs_for_real = True

    def __enter__(self):
        self._watcher.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._watcher.join(10)
        for workflow in self.workflows.values():
            if workflow.process:
                workflow.process.kill()
        for thread in self._threads:
            thread.join(10)

    def _watch(self):
        while not self._closing.wait(0.1):
            for run in list(self.kfp.state.runs):
                if run.state == "PENDING" and run.run_id not in self.workflows:
                    run.state = "RUNNING"
                    workflow = self.workflows[run.run_id] = self._workflow(run)
                    thread = threading.Thread(target=self._execute, args=(workflow,))
                    self._threads.append(thread)
                    thread.start()
                elif run.state == "CANCELING" and not self.workflows[run.run_id].is_terminated:
                    self._terminate(self.workflows[run.run_id])

    def _workflow(self, run):
        wanted = run.pipeline_version_reference.pipeline_version_id
        versions = self.kfp.state.versions
        (version,) = (each for each in versions if each.pipeline_version_id == wanted)
        spec = copy.deepcopy(version.pipeline_spec)
        kubernetes = spec["platform_spec"]["platforms"]["kubernetes"]
        for task in tasks(spec["pipeline_spec"]):
            task.pop("retryPolicy", None)  # which repeats no crash here, but in kfp.local
        return Workflow(
            run=run,
            spec=yaml.safe_dump(spec["pipeline_spec"]),
            platform=kubernetes["deploymentSpec"]["executors"],
        )

    def _execute(self, workflow):
        run = workflow.run
        own = {name: os.environ[name] for name in INHERITED if name in os.environ}
        given = {"spec": workflow.spec, "arguments": run.runtime_config.parameters}
        with (self.root / f"argo-{run.run_id}.log").open("w") as log:
            workflow.process = process = subprocess.Popen(
                [sys.executable, "-m", "fakes.argo", run.run_id, str(self.root)],
                cwd=Path(__file__).parents[1],
                env={**own, "HOME": str(self.root)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        with process, contextlib.suppress(BrokenPipeError):
            print(json.dumps(given), file=process.stdin, flush=True)
            for line in process.stdout:
                is_well = self._task(workflow, **json.loads(line))
                print(json.dumps(is_well), file=process.stdin, flush=True)
        is_well = process.returncode == 0 and not workflow.failed
        run.state = "SUCCEEDED" if is_well else "FAILED"

    def _task(self, workflow, stage, command, env):
        for attempt in range(RETRIES + 1):
            name = self._create_pod(workflow, stage, command, env, attempt)
            workflow.pods[stage] = name
            self._describe(workflow)
            while (pod := self.kube.get("pods", "kubeflow", name)) and not self._closing.is_set():
                if pod["status"]["phase"] in ENDED:
                    is_well = pod["status"]["phase"] == "Succeeded"
                    workflow.failed |= set() if is_well else {stage}
                    self._describe(workflow)
                    return is_well
                time.sleep(0.1)
        workflow.failed.add(stage)
        return False

    def _create_pod(self, workflow, stage, command, env, attempt):
        executor = workflow.platform[f"exec-{stage}"]
        name = f"citation-{workflow.run.run_id[:5]}-{stage}-{attempt}"
        labels = {"pipeline/runid": workflow.run.run_id, **executor["podMetadata"]["labels"]}
        container = {"name": "main", "image": "citeflow-step", "command": command}
        container["env"] = [{"name": key, "value": value} for key, value in env.items()]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
        spec = {"containers": [container], "restartPolicy": "Never"}
        self.kube.store.create("pods", "kubeflow", {**pod, "spec": spec})
        return name

    def _describe(self, workflow):
        """Let the run have the details of its tasks as Kubeflow Pipelines 2.17 reports them."""
        details = []
        for stage, pod in workflow.pods.items():
            child = models.PipelineTaskDetailChildTask(pod_name=pod)
            details += [
                models.V2beta1PipelineTaskDetail(
                    run_id=workflow.run.run_id,
                    display_name=name,
                    state="FAILED" if stage in workflow.failed else "SUCCEEDED",
                    child_tasks=[child],
                )
                for name in (stage, f"{stage}-driver", "executor")
            ]
        workflow.run.run_details = models.V2beta1RunDetails(task_details=details)

    def _terminate(self, workflow):
        """Signal the containers that run; the pods stay, with exit code 143."""
        workflow.is_terminated = True
        for name in workflow.pods.values():
            with contextlib.suppress(ApiError, StopIteration):
                pod = self.kube.store.get("pods", "kubeflow", name)
                if "running" in container_status(pod).get("state", {}):
                    self.kubelet.signal(pod, signal.SIGTERM)


def main(run_id, root):
    """Resolve the tasks of a run: print the command of each, and read whether it went well."""
    from kfp import components, local
    from kfp.local import placeholder_utils, status, task_dispatcher

    requests = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    class Pod:
        def __init__(self, full_command, env_vars, **_):
            self.task = {"stage": stage_of(full_command), "command": full_command, "env": env_vars}

        def run(self):
            print(json.dumps(self.task), file=requests, flush=True)
            is_well = json.loads(sys.stdin.readline())
            return status.Status.SUCCESS if is_well else status.Status.FAILURE

    def stage_of(command):
        return command[command.index("--function_to_execute") + 1]

    given = json.loads(sys.stdin.readline())
    task_dispatcher.subprocess_task_handler.SubprocessTaskHandler = Pod
    placeholder_utils.make_random_id = lambda: run_id
    with tempfile.TemporaryDirectory(dir=root) as workspace:
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=f"{root}/artifacts",
            workspace_root=workspace,
        )
        components.load_component_from_text(given["spec"])(**given["arguments"])


if __name__ == "__main__":
    main(*sys.argv[1:])
