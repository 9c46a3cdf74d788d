"""The launcher is killed at each of its requests, before or after it took effect, and repeated."""

import datetime
import os
import signal

import one_attempt
import psutil
import pytest
from clusters import NAMESPACE, eventually, owner
from fakes.kube_api import KubeApi, timestamp
from fakes.operator import TrainingOperator

from citeflow.kubernetes.reaper import GRACE_S, reap


def attempt(processes, kube, root, pod, target=one_attempt.attempt):
    arguments = (kube.url, str(root), pod.name, pod.uid)
    step = processes.Process(target=target, args=arguments)
    step.start()
    return step


@pytest.mark.fault("F29")
@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("phase", ["before", "after"])
def test_killed_launcher_leaves_one_job_for_the_next(processes, tmp_path, number, phase):
    killed = []
    uids = set()
    model = tmp_path / "runs" / "run" / "model"

    def kill(count, request, now):
        uids.update(job["metadata"]["uid"] for job in kube.list("pytorchjobs"))
        if (count, now) == (number, phase) and not killed:
            killed.append(request)
            os.kill(step.pid, signal.SIGKILL)

    def script(pod):
        while not killed:
            yield 0.02
        yield 0.1
        if pod["metadata"]["name"].endswith("worker-0"):
            yield lambda: model.write_text("whole")
            yield 0

    with KubeApi() as kube, TrainingOperator(kube, script=script):
        first = owner(kube, "step-1")
        second = owner(kube, "step-2")
        kube.on_request(kill)
        step = attempt(processes, kube, tmp_path, first)
        step.join(20)
        assert step.exitcode == -signal.SIGKILL
        again = attempt(processes, kube, tmp_path, second)
        again.join(20)
        assert again.exitcode == 0
        assert len(uids) == 1
        step.close()
        again.close()


@pytest.mark.fault("F29")
@pytest.mark.parametrize("number", [2, 3, 6])
def test_step_whose_work_is_killed_adopts_its_own_job(processes, tmp_path, number):
    """On a stock Kubeflow Pipelines: nobody starts the pod again."""
    killed = []
    model = tmp_path / "runs" / "run" / "model"

    def kill(count, request, now):
        if count >= number and now == "after" and not killed:
            (child,) = psutil.Process(step.pid).children()
            killed.append(child.pid)
            child.kill()

    def script(pod):
        while not killed:
            yield 0.02
        yield lambda: model.write_text("whole")
        yield 0

    with KubeApi() as kube, TrainingOperator(kube, script=script):
        kube.on_request(kill)
        step = attempt(processes, kube, tmp_path, owner(kube, "step-1"), one_attempt.step)
        step.join(20)
        assert (step.exitcode, len(killed)) == (0, 1)
        (job,) = kube.list("pytorchjobs")
        assert len(job["metadata"]["ownerReferences"]) == 1
        assert sum(each.verb == "create" for each in kube.requests) == 1
        step.close()


@pytest.mark.fault("F28")
def test_step_that_is_stopped_stops_its_job(processes, tmp_path, kube):
    with TrainingOperator(kube, script=lambda pod: ["starts", 60.0]):
        step = attempt(processes, kube, tmp_path, owner(kube, "step-1"), one_attempt.step)
        eventually(lambda: len(kube.list("pods")) == 3)
        os.kill(step.pid, signal.SIGTERM)
        step.join(20)
        assert step.exitcode == 143
        eventually(lambda: not kube.list("pytorchjobs"))
        step.close()


@pytest.mark.fault("F28")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_launcher_that_ends_leaves_nothing_behind(processes, tmp_path, client, kube, number):
    with TrainingOperator(kube, script=lambda pod: ["starts", 60.0]):
        step = attempt(processes, kube, tmp_path, owner(kube, "step-1"))
        eventually(lambda: len(kube.list("pods")) == 3)
        os.kill(step.pid, number)
        step.join(20)
        assert step.exitcode in (-signal.SIGKILL, 143)
        if number == signal.SIGKILL:
            assert kube.list("pytorchjobs")
            end = {"terminated": {"exitCode": 137, "finishedAt": timestamp()}}
            status = {"name": "main", "image": "i", "imageID": "", "ready": False, "state": end}
            status = {"phase": "Failed", "containerStatuses": [{**status, "restartCount": 0}]}
            kube.patch("pods", NAMESPACE, "step-1", {"status": status})
            later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=GRACE_S + 2)
            # A job that changes meanwhile is left for the next round.
            eventually(lambda: reap(client, now=later))
        eventually(lambda: not kube.list("pytorchjobs") and len(kube.list("pods")) == 1)
        step.close()
