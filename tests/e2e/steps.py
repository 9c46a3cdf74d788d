"""What the trial does, one function for each thing, with a cluster and a server of Kubeflow
Pipelines at hand."""

import contextlib
import dataclasses
import math
import re
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client as k8s
from kubernetes import stream

from citeflow.errors import CiteflowError, ConfigError, UnavailableError
from citeflow.kubeflow import client as kfp_client
from citeflow.kubeflow import submit
from citeflow.kubeflow.client import SUCCEEDED, TERMINAL, KfpClient
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes import client as cluster_api
from citeflow.kubernetes.client import KINDS, Api, Json
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import LAUNCHERS
from citeflow.kubernetes.job_status import SELECTORS, end_of, summary
from e2e import artifacts
from e2e.helper import CLEAN, LABEL, LIMITED, Helper
from e2e.options import Options
from e2e.waiting import require, until

PIPELINE = "citeflow-e2e"
"""Name of the pipeline, and of the experiment."""

ORPHAN_S = 300.0
"""How long a job may outlive its run."""

ENDLESS_EPOCHS = 10**6

KILL = """
import os, pathlib, signal
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (folder / "cmdline").read_bytes().split(b"\\0")
    except OSError:
        continue
    if b"python" in words[0] and b"kfp.dsl.executor_main" in words[1:4]:
        os.kill(int(folder.name), signal.SIGKILL)
        print("killed", folder.name)
"""
"""Run in the pod of a step: ends what the step does, and so fails this attempt, and leaves the pod.
"""


@dataclass(kw_only=True)
class Trial:
    """One trial, and what it has made so far."""

    options: Options
    api: Api
    server: KfpClient
    tag: str
    """Tells this trial from others, in all names."""

    seed: int
    """Of the graph, which is therefore this trial's alone, and can be removed in the end."""

    helper: Helper
    runs: dict[str, str] = field(default_factory=dict)
    """Ids of the runs by their names on the volume."""

    made: dict[str, str] = field(default_factory=dict)
    """Ids of the pipeline and its version."""

    @property
    def timeout_s(self) -> float:
        """Longest wait of a step."""
        return 60 * self.options.minutes

    @property
    def kind(self) -> str:
        """Of the jobs."""
        return LAUNCHERS[self.options.launcher]

    def name(self, what: str) -> str:
        """Name of a run."""
        return f"e2e-{self.tag}-{what}"


def reach(options: Options) -> Api:
    """The cluster that the options name.

    Raises: UnavailableError, where there is none that answers within a minute; ConfigError, where it refuses.
    """
    try:
        api = cluster_api.connect(namespace=options.namespace)
    except ConfigError as error:
        raise UnavailableError(error.what, error.value, hint=error.hint) from None
    dataclasses.replace(api, patience_s=30.0).pods(LABEL)
    return api


def connect(options: Options, api: Api) -> Trial:
    """A new trial on a cluster, with the server of Kubeflow Pipelines that the options name.

    Raises: CiteflowError, where that does not answer, or refuses."""
    token = Path(options.token_file) if options.token_file else None
    server = kfp_client.connect(host=options.host, namespace=options.namespace, token_file=token)
    tag, seed = secrets.token_hex(3), secrets.randbelow(10**9)
    helper = Helper(
        api=api, image=options.step_image, tag=tag, timeout_s=min(300.0, 60 * options.minutes)
    )
    return Trial(options=options, api=api, server=server, tag=tag, seed=seed, helper=helper)


# Pipelines and runs


def settings(trial: Trial, epochs: int) -> str:
    """A small graph, and a training that is long enough to be disturbed."""
    return yaml.safe_dump(
        {
            "synthetic": {"papers": trial.options.papers, "seed": trial.seed},
            "data": {"holdout": 0.1, "negatives": 50},
            "model": {"width": 32},
            "train": {"papers": 200, "negatives": 64, "epochs": epochs, "evaluations": 20},
        }
    )


def plan(trial: Trial, what: str = "plain", epochs: int = 0) -> submit.SubmissionPlan:
    """A run that takes nothing from a cache."""
    options, name = trial.options, trial.name(what)
    job = {
        "cpu": options.cpu,
        "memory": options.memory,
        "shared_memory": "256Mi",
        "deadline_hours": 1.0,
    }
    parameters = {
        "dataset": "synthetic",
        "settings": settings(trial, epochs or options.epochs),
        "workers": 2,
        "launcher": options.launcher,
        "job": yaml.safe_dump(job),
        "run_name": name,
        "data_root": options.data_root,
    }
    return submit.plan(
        parameters,
        submit.Package(
            name=PIPELINE,
            version=f"e2e-{trial.tag}",
            step_image=options.step_image,
            train_image=options.train_image,
            no_cache=True,
        ),
        submit.RunOptions(
            experiment=PIPELINE, run_name=name, service_account=options.service_account
        ),
    )


def upload(trial: Trial) -> Json:
    """Upload the pipeline as a new version."""
    made = submit.upload(trial.server, plan(trial)).describe()
    trial.made = {name: made[name] for name in ("pipeline_id", "version_id")}
    return made


def start(trial: Trial, what: str, epochs: int = 0) -> str:
    """Start a run; returns its id."""
    run_id = submit.submit(trial.server, plan(trial, what, epochs)).run_id
    trial.runs[trial.name(what)] = run_id
    return run_id


def finish(trial: Trial, run_id: str) -> Any:
    """Wait for a run that shall succeed; its logs' ends are shown if it does not."""
    try:
        run = trial.server.wait_for_run(run_id, timeout_s=trial.timeout_s)
    except CiteflowError as error:
        show_logs(trial, run_id)
        raise AssertionError(str(error)) from None
    if run.state != SUCCEEDED:
        show_logs(trial, run_id)
    require(run.state == SUCCEEDED, f"the run ended as {run.state}; the ends of its logs are above")
    return run


def show_logs(trial: Trial, run_id: str, lines: int = 30) -> None:
    """Print the last lines of all of a run's pods, which are gone later."""
    for pod in trial.api.pods(f"{RUN_ID}={run_id}"):
        container = main_container(pod)
        with contextlib.suppress(k8s.ApiException):
            text = trial.helper.log(pod.metadata.name, container)
            print(
                f"--- {pod.metadata.name}: {summary([pod])}",
                *text.splitlines()[-lines:],
                sep="\n",
                file=sys.stderr,
            )


def main_container(pod: k8s.V1Pod) -> str:
    """The container that does the work."""
    names = [container.name for container in pod.spec.containers]
    return next((name for name in ("main", "pytorch", "node") if name in names), names[0])


def steps_that_failed(run: Any) -> list[str]:
    """Tasks of a run that failed, as far as the server tells of tasks."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    return sorted(
        {str(task.display_name) for task in tasks if task.state in ("FAILED", "CANCELED")}
    )


# Pods and jobs


def step_pods(trial: Trial, run_id: str, verb: str = "") -> list[k8s.V1Pod]:
    """Pods of a run's steps, the oldest first."""
    selector = f"{RUN_ID}={run_id},app.kubernetes.io/part-of=citeflow"
    selector += f",app.kubernetes.io/component={verb}" if verb else ""
    pods = [pod for pod in trial.api.pods(selector) if main_container(pod) == "main"]
    return sorted(pods, key=lambda pod: pod.metadata.creation_timestamp)


def jobs_of(trial: Trial, run_id: str) -> list[Json]:
    """Jobs of a run."""
    return [
        job for job in trial.api.jobs(trial.kind) if job["metadata"]["labels"].get(RUN_ID) == run_id
    ]


def workers_of(trial: Trial, job: Json) -> list[k8s.V1Pod]:
    """Pods of a job, by their names."""
    pods = trial.api.pods(f"{SELECTORS[trial.kind]}={job['metadata']['name']}")
    return sorted(pods, key=lambda pod: pod.metadata.name)


def training(trial: Trial, run_id: str) -> Json:
    """The job of a run, once its workers train; that there is one is a part of it."""

    def look() -> Json | None:
        run = trial.server.get_run(run_id)
        if run.state in TERMINAL:
            show_logs(trial, run_id)
            raise AssertionError(
                f"the run ended as {run.state} before its training was seen; more CITEFLOW_E2E_EPOCHS?"
            )
        jobs = jobs_of(trial, run_id)
        require(len(jobs) <= 1, f"{len(jobs)} jobs of one run")
        logs = [log_of(trial, pod) for pod in workers_of(trial, jobs[0])] if jobs else []
        return jobs[0] if any("evaluated" in text for text in logs) else None

    def state() -> str:
        pods = [pod for job in jobs_of(trial, run_id) for pod in workers_of(trial, job)]
        return f"{len(jobs_of(trial, run_id))} jobs; {summary(pods)}; steps: {summary(step_pods(trial, run_id))}"

    return until("workers that train", look, timeout_s=trial.timeout_s, state=state)


def log_of(trial: Trial, pod: k8s.V1Pod) -> str:
    """What a pod has written, or nothing as long as it can not be read."""
    with contextlib.suppress(k8s.ApiException):
        return trial.helper.log(pod.metadata.name, main_container(pod))
    return ""


def delete_worker(trial: Trial, job: Json) -> tuple[str, str]:
    """Delete a worker of a job that is under way, and wait for the pod in its place; returns both
    uids.

    Raises: AssertionError, where none came, or the job had ended: then nothing was disturbed.
    """
    pods = workers_of(trial, job)
    victim = pods[min(trial.options.victim, len(pods) - 1)]
    now = trial.api.get(trial.kind, job["metadata"]["name"])
    require(
        now is not None and end_of(now) is None, "the job ended before a worker could be deleted"
    )
    k8s.CoreV1Api(trial.api.client).delete_namespaced_pod(
        victim.metadata.name, trial.api.namespace, **LIMITED
    )

    def replacement() -> str | None:
        found = {pod.metadata.name: pod.metadata.uid for pod in workers_of(trial, job)}
        uid = found.get(victim.metadata.name)
        return uid if uid != victim.metadata.uid else None

    uid = until(
        f"another {victim.metadata.name}",
        replacement,
        timeout_s=min(300.0, trial.timeout_s),
        state=lambda: summary(workers_of(trial, job)),
    )
    return victim.metadata.uid, uid


def kill_step(trial: Trial, run_id: str) -> k8s.V1Pod:
    """End what the train step does, as a crash would; returns its pod, which stays as it failed."""
    pod = step_pods(trial, run_id, "train")[-1]
    core = k8s.CoreV1Api(
        k8s.ApiClient(trial.api.client.configuration)
    )  # its requests become web sockets for a while
    told = stream.stream(
        core.connect_get_namespaced_pod_exec,
        pod.metadata.name,
        trial.api.namespace,
        container="main",
        command=["python3", "-c", KILL],
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _request_timeout=30,
    )
    require("killed" in told, f"nothing was killed in {pod.metadata.name}: {told}")
    return pod


def repeated(trial: Trial, run_id: str, first: k8s.V1Pod, job: Json) -> Json:
    """The job, once another attempt of the train step has taken it over.

    Raises: AssertionError, where it is not the same job any more."""
    uid = job["metadata"]["uid"]

    def look() -> Json | None:
        pods = step_pods(trial, run_id, "train")
        jobs = jobs_of(trial, run_id)
        require(
            [each["metadata"]["uid"] for each in jobs] == [uid],
            f"not the one job {uid}, but {len(jobs)}",
        )
        others = {pod.metadata.uid for pod in pods} - {first.metadata.uid}
        owners = {owner["uid"] for owner in jobs[0]["metadata"].get("ownerReferences", [])}
        return jobs[0] if others & owners else None

    def state() -> str:
        return f"steps: {summary(step_pods(trial, run_id, 'train'))}"

    return until("another attempt of the step", look, timeout_s=trial.timeout_s, state=state)


def gone(trial: Trial, job: Json, *, within_s: float = ORPHAN_S) -> tuple[float, float]:
    """Wait for a job to be gone, then for its pods; returns the seconds of both."""
    name, began = job["metadata"]["name"], time.monotonic()
    until(
        f"the end of {name}",
        lambda: trial.api.get(trial.kind, name) is None,
        timeout_s=within_s,
        state=lambda: f"the job still, with {summary(workers_of(trial, job))}",
    )
    after = time.monotonic() - began
    until(
        f"the end of the pods of {name}",
        lambda: not workers_of(trial, job),
        timeout_s=120.0,
        state=lambda: summary(workers_of(trial, job)),
    )
    return after, time.monotonic() - began


# What a run left


def check_report(report: Json | None) -> float:
    """The test MRR in a published report."""
    require(report, "there is no published report.json on the volume")
    mrr = float(report["test"]["mrr"])
    require(math.isfinite(mrr) and 0.0 < mrr <= 1.0, f"test MRR {mrr}")
    return mrr


def check_artifacts(trial: Trial, run_id: str) -> dict[str, dict[str, str]]:
    """Every artifact of the pipeline has a place in the object store; returns them."""
    found = artifacts.outputs_of(step_pods(trial, run_id))
    lacking = artifacts.differences(
        found, artifacts.expected(PIPELINES["citation"].compiled().read_text())
    )
    require(not lacking, f"artifacts that no step of the run makes: {lacking}")
    return found


def prefixed(text: str) -> dict[str, int]:
    """How many lines of each worker a launcher's log has."""
    counts: dict[str, int] = {}
    for worker in re.findall(r"^(\S*(?:worker|node)-\S+) \| ", text, re.MULTILINE):
        counts[worker] = counts.get(worker, 0) + 1
    return counts


def starts(text: str) -> int:
    """How often a training began, or went on from a checkpoint, as a launcher's log tells it."""
    return len(re.findall(r" \| .*train\[\d+\] (?:starting|resuming)", text))


def tensorboard_runs(address: str) -> list[str]:
    """The runs that a TensorBoard shows."""
    with urllib.request.urlopen(f"{address.rstrip('/')}/data/runs", timeout=30) as answer:
        return yaml.safe_load(answer.read())


# The end


def clean(trial: Trial) -> list[str]:
    """Remove all that was made; returns what could not be, and why."""
    return list(_failures(_cleaning(trial)))


def _failures(actions: Iterator[tuple[str, Callable[[], Any]]]) -> Iterator[str]:
    for what, action in actions:
        try:
            action()
        except Exception as error:  # whatever it is, the others are still to be removed
            yield f"{what}: {error}"


def _cleaning(trial: Trial) -> Iterator[tuple[str, Callable[[], Any]]]:
    client, names = trial.server.kfp, list(trial.runs)
    for run_id in trial.runs.values():
        yield f"run {run_id}", lambda run_id=run_id: _end_run(trial, run_id)
        yield f"jobs of {run_id}", lambda run_id=run_id: _delete_jobs(trial, run_id)
    if names:
        yield "volume", lambda: _clean_volume(trial, names)
    for run_id in trial.runs.values():
        yield (
            f"run {run_id}",
            lambda run_id=run_id: trial.server.call(client.runs.run_service_delete_run, run_id),
        )
    if trial.made:
        ids = trial.made["pipeline_id"], trial.made["version_id"]
        yield (
            "version",
            lambda: trial.server.call(
                client.pipelines.pipeline_service_delete_pipeline_version, *ids
            ),
        )
        yield "pipeline", lambda: _delete_empty_pipeline(trial)
    if names:
        yield "experiment", lambda: _delete_empty_experiment(trial)
    for name in trial.helper.made:
        yield f"pod {name}", lambda name=name: trial.helper.delete(name)


def _end_run(trial: Trial, run_id: str) -> None:
    if trial.server.get_run(run_id).state not in TERMINAL:
        trial.server.terminate_run(run_id)
        trial.server.wait_for_run(run_id, timeout_s=ORPHAN_S)


def _delete_empty_pipeline(trial: Trial) -> None:
    calls, pipeline_id = trial.server.kfp.pipelines, trial.made["pipeline_id"]
    if not trial.server.call(
        calls.pipeline_service_list_pipeline_versions, pipeline_id
    ).pipeline_versions:
        trial.server.call(calls.pipeline_service_delete_pipeline, pipeline_id)


def _delete_empty_experiment(trial: Trial) -> None:
    found = trial.server.find_experiment(PIPELINE)
    if found and not trial.server.list_runs(experiment_id=found.experiment_id):
        trial.server.call(
            trial.server.kfp.experiments.experiment_service_delete_experiment,
            found.experiment_id,
        )


def _delete_jobs(trial: Trial, run_id: str) -> None:
    for kind in KINDS:
        for job in trial.api.jobs(kind):
            if job["metadata"]["labels"].get(RUN_ID) == run_id:
                trial.api.delete(kind, job["metadata"]["name"])


def _clean_volume(trial: Trial, names: list[str]) -> None:
    left = trial.helper.ask(CLEAN, trial.options.data_root, *names)
    require(not left, f"could not be removed: {left}")
