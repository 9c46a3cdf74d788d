"""The actions of the trial, with a cluster and a server of Kubeflow Pipelines at hand."""

import contextlib
import dataclasses
import math
import re
import secrets
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from kubernetes import client as k8s
from kubernetes import stream

from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubeflow import connection, submit
from citeflow.kubeflow.calls import RawApi, call
from citeflow.kubeflow.client import KfpClient
from citeflow.kubeflow.outcome import SUCCEEDED, TERMINAL
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.kubernetes import client as kube_client
from citeflow.kubernetes.client import KubeClient
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_status import summarize
from citeflow.kubernetes.launchers import LAUNCHERS
from e2e import artifacts
from e2e.helper import CLEAN, LABEL, LIMITS, Helper
from e2e.options import Options
from e2e.waiting import require, until

PIPELINE = "citeflow-e2e"
"""Name of the pipeline, and of the experiment."""

ORPHAN_S = 300.0
"""How long a job may outlive its run."""

ENDLESS_EPOCHS = 10**6

STARTED = re.compile(r"train\[rank \d+\] (?:starting|resuming) ")
"""In the log of a worker: it trains. The first validation may be far away."""

EVALUATED = re.compile(r"train\[rank \d+\] evaluated ")
"""In the log of a worker: it has trained for a while, and goes on."""

KILL = """
import os, pathlib, signal
parents = {}
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        words = (folder / "cmdline").read_bytes().split(b"\\0")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    except OSError:
        continue
    if b"python" in words[0] and b"kfp.dsl.executor_main" in words[1:4]:
        parents[int(folder.name)] = int(status["PPid"])
for process, parent in parents.items():
    if parent in parents:
        os.kill(process, signal.SIGKILL)
        print("killed", process)
"""
"""Run in the pod of a step: kills the child that does the work, and not the parent that waits."""


@dataclass(kw_only=True)
class Trial:
    """One trial, and what it has created so far."""

    options: Options
    client: KubeClient
    server: KfpClient
    helper: Helper
    tag: str
    """Part of all names of this trial."""

    seed: int
    """Seed of the graph, which is this trial's alone and can be removed in the end."""

    runs: dict[str, str] = field(default_factory=dict)
    """Ids of the runs by their names on the volume."""

    uploaded: submit.Upload | None = None

    @property
    def timeout_s(self):
        """Longest wait of a step."""
        return 60 * self.options.minutes

    @property
    def launcher(self):
        return LAUNCHERS[self.options.launcher]

    def name(self, what):
        """Return the name of a run."""
        return f"e2e-{self.tag}-{what}"


def reach(options):
    """Connect to the cluster that the options name.

    Raises:
        UnavailableError: there is none that answers within half a minute.
        ConfigError: it refuses.
    """
    try:
        client = kube_client.connect(namespace=options.namespace)
    except ConfigError as error:
        raise UnavailableError(error.what, error.value, hint=error.hint) from None
    dataclasses.replace(client, patience_s=30.0).pods(LABEL)
    return client


def connect(options, client):
    """Return a new trial on a cluster and the Kubeflow Pipelines that the options name."""
    token = Path(options.token_file) if options.token_file else None
    server = connection.connect(host=options.host, namespace=options.namespace, token_file=token)
    tag = secrets.token_hex(3)
    timeout_s = min(300.0, 60 * options.minutes)
    helper = Helper(client=client, image=options.step_image, tag=tag, timeout_s=timeout_s)
    seed = secrets.randbelow(10**9)
    return Trial(options=options, client=client, server=server, tag=tag, seed=seed, helper=helper)


# Pipelines and runs


def plan(trial, what="plain", epochs=0, **job):
    """Plan a run on a small graph that is long enough to be disturbed, without any cache.

    Args:
        trial: the trial.
        what: the part of the trial.
        epochs: length of the training; by default that of the options.
        job: what its job shall have besides, or instead.
    """
    options = trial.options
    settings = {
        "synthetic": {"num_papers": options.papers, "seed": trial.seed},
        "data": {"holdout": 0.1, "eval_negatives": 50},
        "model": {"hidden_channels": 32},
        "train": {
            "nodes_per_batch": 200,
            "num_negatives": 64,
            "num_validations": 20,
            "epochs": epochs or options.epochs,
        },
    }
    job = {
        "cpu": options.cpu,
        "memory": options.memory,
        "shared_memory": "256Mi",
        "deadline_hours": 1.0,
        **job,
    }
    parameters = {
        "dataset": "synthetic",
        "settings": yaml.safe_dump(settings),
        "workers": 2,
        "launcher": options.launcher,
        "job": yaml.safe_dump(job),
        "run_name": trial.name(what),
        "data_root": options.data_root,
    }
    package = submit.Package(
        name=PIPELINE,
        version=f"e2e-{trial.tag}",
        step_image=options.step_image,
        train_image=options.train_image,
        no_cache=True,
    )
    run = submit.RunOptions(
        experiment=PIPELINE, run_name=trial.name(what), service_account=options.service_account
    )
    return submit.plan(parameters, package, run)


def upload(trial):
    """Upload the pipeline as a new version; return its URL."""
    trial.uploaded = submit.upload(trial.server, plan(trial))
    return trial.uploaded.url


def start(trial, what, epochs=0, **job):
    """Start a run; return its id."""
    run_id = submit.submit(trial.server, plan(trial, what, epochs, **job)).run_id
    trial.runs[trial.name(what)] = run_id
    return run_id


def finish(trial, run_id):
    """Wait for a run to succeed; show the ends of its logs if it does not."""
    state = "not ended in time"
    try:
        run = trial.server.wait_for_run(run_id, timeout_s=trial.timeout_s)
        state = run.state
    finally:
        if state != SUCCEEDED:
            show_logs(trial, run_id)
    require(state == SUCCEEDED, f"the run ended as {state}; the ends of its logs are above")
    return run


def show_logs(trial, run_id, lines=30):
    """Print the last lines of all pods of a run, which are gone later."""
    for pod in trial.client.pods(f"{RUN_ID}={run_id}"):
        last = log_of(trial, pod).splitlines()[-lines:]
        print(f"--- {pod.name}: {summarize([pod])}", *last, sep="\n", file=sys.stderr)


# Pods and jobs


def main_container(pod):
    """Return the name of the container that does the work."""
    known = ["main", *(launcher.container for launcher in LAUNCHERS.values())]
    return next((name for name in known if name in pod.container_names), pod.container_names[0])


def log_of(trial, pod):
    """Return what a pod has written, or nothing while it cannot be read."""
    with contextlib.suppress(k8s.ApiException):
        return trial.helper.log(pod.name, main_container(pod))
    return ""


def step_selector(run_id):
    return f"{RUN_ID}={run_id},app.kubernetes.io/part-of=citeflow"


def step_pods(trial, run_id, stage=""):
    """List the pods of the steps of a run, the oldest first."""
    selector = step_selector(run_id)
    selector += f",app.kubernetes.io/component={stage}" if stage else ""
    pods = [pod for pod in trial.client.pods(selector) if main_container(pod) == "main"]
    return sorted(pods, key=lambda pod: pod.created)


def jobs_of(trial, run_id):
    """List the jobs of a run."""
    return [job for job in trial.client.jobs(trial.launcher) if job.run_id == run_id]


def workers_of(trial, job):
    """List the pods of a job by their names."""
    pods = trial.client.pods(trial.launcher.pod_selector(job.name))
    return sorted(pods, key=lambda pod: pod.name)


def training(trial, run_id, sign):
    """Wait until the log of a worker of a run's one job has a sign; return the job."""

    def look():
        state = trial.server.get_run(run_id).state
        if state in TERMINAL:
            show_logs(trial, run_id)
            hint = "more CITEFLOW_E2E_EPOCHS?"
            raise AssertionError(f"the run ended as {state} before its training was seen; {hint}")
        jobs = jobs_of(trial, run_id)
        require(len(jobs) <= 1, f"{len(jobs)} jobs of one run")
        logs = [log_of(trial, pod) for pod in workers_of(trial, jobs[0])] if jobs else []
        return jobs[0] if any(map(sign.search, logs)) else None

    def state():
        jobs = jobs_of(trial, run_id)
        pods = [pod for job in jobs for pod in workers_of(trial, job)]
        steps = summarize(step_pods(trial, run_id))
        return f"{len(jobs)} jobs; {summarize(pods)}; steps: {steps}"

    return until("workers that train", look, timeout_s=trial.timeout_s, state=state)


def delete_worker(trial, job):
    """Delete a worker of a running job, and wait for its replacement; return both uids.

    Raises:
        AssertionError: none came, or the job had ended, so that nothing was disturbed.
    """
    pods = workers_of(trial, job)
    ranks = [pod for pod in pods if re.match("worker|node", trial.launcher.replica(pod))]
    victim = ranks[min(trial.options.victim, len(ranks) - 1)]
    now = trial.client.job(trial.launcher, job.name)
    require(now and now.end is None, "the job ended before a worker could be deleted")
    trial.helper.core.delete_namespaced_pod(victim.name, trial.client.namespace, **LIMITS)

    def replacement():
        # KubeRay gives it another name.
        uids = {pod.uid for pod in workers_of(trial, job)} - {pod.uid for pod in pods}
        return next(iter(uids), None)

    uid = until(
        f"another pod for {victim.name}",
        replacement,
        timeout_s=min(300.0, trial.timeout_s),
        state=lambda: summarize(workers_of(trial, job)),
    )
    return victim.uid, uid


def kill_step(trial, run_id):
    """Kill the child of the train step, as a crash would; return its pod."""
    pod = step_pods(trial, run_id, "train")[-1]
    # A client of its own: its requests become web sockets for a while.
    core = k8s.CoreV1Api(k8s.ApiClient(trial.client.api.configuration))
    output = stream.stream(
        core.connect_get_namespaced_pod_exec,
        pod.name,
        trial.client.namespace,
        container="main",
        command=["python3", "-c", KILL],
        stdout=True,
        stderr=True,
        stdin=False,
        tty=False,
        _request_timeout=30,
    )
    require("killed" in output, f"nothing was killed in {pod.name}: {output}")
    return pod


def adopted(trial, run_id, first, job):
    """Wait until the step has started again within its pod, and taken over the same job.

    Raises:
        AssertionError: it has not, or not in this pod, or it is not the same job any more.
    """

    def look():
        state = trial.server.get_run(run_id).state
        if state in TERMINAL:
            show_logs(trial, run_id)
        require(state not in TERMINAL or state == SUCCEEDED, f"the run ended as {state}")
        uids = [each.uid for each in jobs_of(trial, run_id)]
        require(uids == [job.uid], f"not the one job {job.uid}: {uids}")
        pods = {pod.uid for pod in step_pods(trial, run_id, "train")}
        require(pods == {first.uid}, f"not the one pod {first.uid} of the step: {pods}")
        _, again, rest = log_of(trial, first).partition(" step starts again ")
        is_adopted = again and " launch takes over " in rest
        hint = "more CITEFLOW_E2E_EPOCHS?"
        require(is_adopted or state != SUCCEEDED, f"the job ended before it was taken over; {hint}")
        return is_adopted

    def state():
        return f"steps: {summarize(step_pods(trial, run_id, 'train'))}"

    until("another attempt of the step", look, timeout_s=trial.timeout_s, state=state)


def gone(trial, job, *, within_s=ORPHAN_S):
    """Wait for a job to be gone, then for its pods; return the seconds of both."""
    started = time.monotonic()

    def state():
        return summarize(workers_of(trial, job))

    def is_gone():
        return trial.client.job(trial.launcher, job.name) is None

    until(f"the end of {job.name}", is_gone, timeout_s=within_s, state=state)
    job_s = time.monotonic() - started
    pods = f"the end of the pods of {job.name}"
    until(pods, lambda: not workers_of(trial, job), timeout_s=120.0, state=state)
    return job_s, time.monotonic() - started


# What a run left


def check_report(report):
    """Return the test MRR in a published report."""
    require(report, "there is no published report.json on the volume")
    mrr = float(report["test"]["mrr"])
    require(math.isfinite(mrr) and 0.0 < mrr <= 1.0, f"test MRR {mrr}")
    return mrr


def check_artifacts(trial, run_id):
    """Return the URI of every artifact that the pipeline declares, by step and name."""
    namespace = trial.client.namespace
    found = trial.helper.core.list_namespaced_pod(
        namespace, label_selector=step_selector(run_id), **LIMITS
    )
    pods = sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)
    uris = artifacts.outputs_of(pods)
    lacking = artifacts.missing(uris, PIPELINES["citation"].compiled().read_text())
    require(not lacking, f"artifacts that no step of the run makes: {lacking}")
    return uris


def metrics_of(trial, run_id, stage, artifact):
    """Return the metrics of an artifact, from the tasks of a server without ML Metadata.

    There, each is an artifact of its own with a number (artifact.proto). Others list no tasks.
    """
    get = RawApi(trial.server.kfp).get
    run = call(get, f"/apis/v2beta1/runs/{run_id}", (("view", "FULL"),))
    return {
        metric["name"]: metric["number_value"]
        for task in run.get("tasks") or []
        if task.get("name") == stage
        for output in (task.get("outputs") or {}).get("artifacts") or []
        if output.get("artifact_key") == artifact
        for metric in output.get("artifacts") or []
        if "number_value" in metric
    }


def starts(text):
    """Count how often a training started or resumed, by the log of its launcher."""
    return len(re.findall(r" \| .*train\[rank \d+\] (?:starting|resuming)", text))


def tensorboard_runs(address):
    """Return the runs that a TensorBoard shows."""
    with urllib.request.urlopen(f"{address.rstrip('/')}/data/runs", timeout=30) as answer:
        return yaml.safe_load(answer.read())


# The end


def clean(trial):
    """Remove all that was created; return what could not be, and why."""
    failures = []
    for what, action, *arguments in _cleaning(trial):
        try:
            action(trial, *arguments)
        except Exception as error:  # the others still have to be removed
            failures.append(f"{what}: {error}")
    return failures


def _cleaning(trial):
    for run_id in trial.runs.values():
        yield f"run {run_id}", _end_run, run_id
        yield f"jobs of {run_id}", _delete_jobs, run_id
    if trial.runs:
        yield "volume", _clean_volume
    for run_id in trial.runs.values():
        yield f"run {run_id}", _delete_run, run_id
    if trial.uploaded:
        yield "version", _delete_version
        yield "pipeline", _delete_empty_pipeline
    if trial.runs:
        yield "experiment", _delete_empty_experiment


def _end_run(trial, run_id):
    if trial.server.get_run(run_id).state not in TERMINAL:
        trial.server.terminate_run(run_id)
        trial.server.wait_for_run(run_id, timeout_s=ORPHAN_S)


def _delete_jobs(trial, run_id):
    for job in jobs_of(trial, run_id):
        trial.client.delete(trial.launcher, job.name)
        # Until then its workers may write to the folders that are removed next.
        gone(trial, job)


def _clean_volume(trial):
    left = trial.helper.ask(CLEAN, trial.options.data_root, *trial.runs)
    require(not left, f"could not be removed: {left}")


def _delete_run(trial, run_id):
    call(trial.server.kfp.runs.run_service_delete_run, run_id)


def _delete_version(trial):
    api = trial.server.kfp.pipelines.pipeline_service_delete_pipeline_version
    call(api, trial.uploaded.pipeline_id, trial.uploaded.version_id)


def _delete_empty_pipeline(trial):
    api = trial.server.kfp.pipelines
    pipeline_id = trial.uploaded.pipeline_id
    listed = call(api.pipeline_service_list_pipeline_versions, pipeline_id)
    if not listed.pipeline_versions:
        call(api.pipeline_service_delete_pipeline, pipeline_id)


def _delete_empty_experiment(trial):
    found = trial.server.find_experiment(PIPELINE)
    if found and not trial.server.list_runs(experiment_id=found.experiment_id):
        api = trial.server.kfp.experiments.experiment_service_delete_experiment
        call(api, found.experiment_id)
