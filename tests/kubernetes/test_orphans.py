"""A run that was cancelled, deleted or lost leaves no job and no pod: within five minutes by the reaper's clock."""

import datetime
import functools
import os
import signal
import time

import one_attempt
import pytest
from clusters import NAMESPACE, owner, placement
from fakes.operator import TrainingOperator

from citeflow.kubernetes import job_objects
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.reaper import reap

LIMIT_S, EVERY_S = 300, 60
"""How long anything may be left; how often the reaper comes."""

pytestmark = pytest.mark.fault("F28")


def workflow(kube, phase):
    """The pipeline run, as Argo keeps it."""
    metadata = {
        "name": "citation-x7k2q",
        "namespace": NAMESPACE,
        "labels": {RUN_ID: placement().run_id},
    }
    kind = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}
    kube.put({**kind, "metadata": metadata, "status": {"phase": phase}})


def end_step(kube, at, code, *, sidecar_stays=False):
    """Let the step's container end; Argo's own may stay."""
    end = {"exitCode": code, "finishedAt": at.strftime("%Y-%m-%dT%H:%M:%SZ")}
    states = {
        "main": {"terminated": end},
        "wait": {"running": {}} if sidecar_stays else {"terminated": end},
    }
    statuses = [
        {
            "name": name,
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        for name, state in states.items()
    ]
    phase = "Running" if sidecar_stays else "Failed"
    kube.patch(
        "pods", NAMESPACE, "step-1", {"status": {"phase": phase, "containerStatuses": statuses}}
    )


def terminated(kube, at):
    """KFP's Terminate: Argo ends the run and stops its pods, which it keeps."""
    end_step(kube, at, 143)
    workflow(kube, "Failed")


def deleted(kube, at):
    """KFP's Delete: the run goes, and what it owns with it."""
    kube.remove("workflows", NAMESPACE, "citation-x7k2q")
    kube.remove("pods", NAMESPACE, "step-1")


def out_of_time(kube, at):
    """The step was ended at its deadline, and no attempt follows."""
    end_step(kube, at, 137)
    workflow(kube, "Error")


def killed(kube, at):
    """The launcher died, and Argo has not come to take note of it."""
    end_step(kube, at, 137, sidecar_stays=True)


def node_lost(kube, at):
    """The step's pod is gone with its node, while the run waits for another attempt that never comes."""
    kube.remove("pods", NAMESPACE, "step-1")


def left(kube, plural):
    """Jobs, worker pods and their services."""
    workers = [pod for pod in kube.list("pods") if "step" not in pod["metadata"]["name"]]
    return [*kube.list(plural), *workers, *kube.list("services")]


@pytest.mark.parametrize("kind", [job_objects.PYTORCH_JOB, job_objects.TRAIN_JOB])
@pytest.mark.parametrize("age_s", [0, 45, 3600])
@pytest.mark.parametrize("end", [terminated, deleted, out_of_time, killed, node_lost])
def test_what_nobody_waits_for_is_gone_within_five_minutes(kube, api, figure, kind, age_s, end):
    plural, operator = f"{kind.lower()}s", TrainingOperator(kube)
    workflow(kube, "Running")
    kube.put(job_objects.render(kind, JobSpec(), placement(owner=owner(kube, "step-1"))))
    operator.settle()
    assert len(left(kube, plural)) >= 3
    created = datetime.datetime.fromisoformat(kube.list(plural)[0]["metadata"]["creationTimestamp"])
    died = created + datetime.timedelta(seconds=age_s)
    end(kube, died)
    orphan_s = 1  # the first pass comes at the worst moment, a second after the death
    while left(kube, plural) and orphan_s <= LIMIT_S + EVERY_S:
        reap(api, now=died + datetime.timedelta(seconds=orphan_s))
        operator.settle()
        orphan_s += EVERY_S if left(kube, plural) else 0
    operator.close()
    figure(runs_ended=1, left=len(left(kube, plural)), orphan_s_max=float(orphan_s))
    assert left(kube, plural) == []
    assert orphan_s <= LIMIT_S


def test_nothing_is_deleted_while_the_step_runs(kube, api):
    operator = TrainingOperator(kube)
    workflow(kube, "Running")
    kube.put(
        job_objects.render(
            job_objects.PYTORCH_JOB, JobSpec(), placement(owner=owner(kube, "step-1"))
        )
    )
    kube.patch("pods", NAMESPACE, "step-1", {"status": {"phase": "Running"}})
    operator.settle()
    before = len(left(kube, "pytorchjobs"))
    assert reap(api, now=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=20)) == []
    assert len(left(kube, "pytorchjobs")) == before
    operator.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_launcher_that_is_stopped_or_killed_leaves_nothing_behind(
    processes, tmp_path, api, kube, figure, number
):
    with TrainingOperator(kube, script=lambda pod: ["begins", 60.0]):
        workflow(kube, "Running")
        pod = owner(kube, "step-1")
        step = processes.Process(
            target=one_attempt.attempt, args=(kube.url, str(tmp_path), pod.name, pod.uid)
        )
        step.start()
        eventually(lambda: len(left(kube, "pytorchjobs")) >= 3)
        began = time.monotonic()
        os.kill(step.pid, number)
        step.join(20)
        assert step.exitcode in (-signal.SIGKILL, 143)
        if number == signal.SIGKILL:
            assert left(kube, "pytorchjobs")
            now = datetime.datetime.now(datetime.UTC)
            end_step(kube, now, 137)
            assert reap(api, now=now + datetime.timedelta(seconds=LIMIT_S - EVERY_S))
        eventually(functools.partial(is_empty, kube))
        figure(
            launchers_ended=1,
            left=len(left(kube, "pytorchjobs")),
            seconds_to_clean_up=time.monotonic() - began,
        )
        step.close()


def is_empty(kube):
    return not left(kube, "pytorchjobs")


def eventually(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)
