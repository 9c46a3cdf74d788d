"""The launcher is killed at each of its requests, before the server has seen it or after, and the step repeated."""

import os
import signal

import one_attempt
import pytest
from clusters import owner
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

DEATHS = [(number, phase) for number in range(1, 16) for phase in ("before", "after")]


def trained_after(killed, model):
    """Pods that train until the launcher was killed, and for a moment more; worker 0 leaves the model."""

    def script(pod):
        yield "starting"
        while not killed:
            yield 0.02
        yield 0.1
        if pod["metadata"]["name"].endswith("worker-0"):
            yield lambda: model.write_text("whole")
            yield 0

    return script


def attempt(processes, kube, run_dir, pod):
    step = processes.Process(
        target=one_attempt.attempt, args=(kube.url, str(run_dir), pod.name, pod.uid)
    )
    step.start()
    return step


@pytest.mark.fault("F29")
@pytest.mark.parametrize(("number", "phase"), DEATHS)
def test_a_launcher_that_dies_at_a_request_leaves_one_job_for_the_next(
    processes, tmp_path, figure, number, phase
):
    killed, uids = [], set()

    def kill(count, request, now):
        uids.update(job["metadata"]["uid"] for job in kube.list("pytorchjobs"))
        if (count, now) == (number, phase) and not killed:
            killed.append(request)
            os.kill(step.pid, signal.SIGKILL)

    with (
        KubeApi() as kube,
        TrainingOperator(kube, script=trained_after(killed, tmp_path / "model")),
    ):
        first, second = owner(kube, "step-1"), owner(kube, "step-2")
        kube.on_request(kill)
        step = attempt(processes, kube, tmp_path, first)
        step.join(20)
        assert killed
        assert step.exitcode == -signal.SIGKILL
        again = attempt(processes, kube, tmp_path, second)
        again.join(20)
        assert again.exitcode == 0
        figure(deaths=len(killed), jobs_created_per_death_max=float(len(uids)))
        assert len(uids) == 1
        step.close()
        again.close()
