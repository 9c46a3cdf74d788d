"""Rows F4, F6 and F44: pods are drained, and deleted again and again, with a real kubelet's pauses.

Nothing of it depends on how fast the machine is but the start of a process: steps wait.
"""

import json
import random
import re
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from clusters import NAMESPACE, connect
from fakes.kube_api import KubeApi, container_status
from fakes.operator import BACKOFF, Backoff, TrainingOperator
from faults import disturbed_worker
from faults.disturbed_training import BETWEEN_CHECKPOINTS, Fault

from citeflow import config, files
from citeflow.kubernetes import launch, watcher
from citeflow.kubernetes.job_spec import JobRequest, JobSpec
from citeflow.paths import RunPaths

STEPS = 1600
STEP_S = 0.15
DELETIONS = 14
EVERY_S = 22.0
GOODPUT = 0.6
"""Least share of the time that is not lost."""

POD_START_S = 1.0
"""From a new pod to its container, on a node that has the image, as recorded."""

PAUSE = Fault(what="pause", attempt=None, rank=None, seconds=STEP_S)
FEW_STEPS = 40
STOPPED = re.compile(r"error=training was asked to stop value=step (\d+)$")
TESTS = Path(__file__).resolve().parents[1]


class Cluster(TrainingOperator):
    """A cluster whose workers take steps of `STEP_S`, and note them."""

    def __init__(self, kube, events):
        super().__init__(kube, real=True, pod_start=POD_START_S, grace=60)
        self.events = events

    def _inside(self, pod, argv):
        replaced = {"citeflow.training.worker": disturbed_worker.__name__}
        return [replaced.get(word, word) for word in argv]

    def _given(self, pod):
        plan = {"events": str(self.events), "faults": [asdict(PAUSE)]}
        return {disturbed_worker.VARIABLE: json.dumps(plan), "PYTHONPATH": str(TESTS)}


class Deletions:
    """Deletes a pod each `EVERY_S` seconds in which all pods run."""

    def __init__(self, choose):
        self.choose = choose
        self.times = []
        self.due = None

    def __call__(self, kube, operator):
        now = time.monotonic()
        self.due = self.due or now + EVERY_S
        pods = sorted(kube.list("pods"), key=lambda pod: pod["metadata"]["name"])
        if now < self.due or len(self.times) == DELETIONS or not all(map(runs, pods)):
            return
        operator.delete_pod(NAMESPACE, self.choose(pods)["metadata"]["name"])
        self.times.append(now)
        self.due = now + EVERY_S


def runs(pod):
    is_deleted = "deletionTimestamp" in pod["metadata"]
    return not is_deleted and "running" in container_status(pod).get("state", {})


class Trained:
    """A training that has succeeded, and what its workers noted."""

    def __init__(self, prepared, root, during=None, *changes, steps=STEPS, validations=4):
        events = root / "events.jsonl"
        run = RunPaths(root, "run")
        spec = JobSpec(volumes={"graph": str(prepared.data_root), "runs": str(root)})
        request = JobRequest(launcher="pytorchjob", spec=spec, run_id="a-run")
        size = [f"train.epochs={steps / 8}", f"train.num_validations={validations}"]
        settings = config.load(overrides=[*prepared.settings, *size, *changes])

        def sleep(seconds):
            time.sleep(0.2)
            if during and events.exists():
                during(kube, operator)

        with (
            KubeApi() as kube,
            Cluster(kube, events) as operator,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(watcher, "VISIBILITY_DELAY_S", 2)
            patch.setattr(launch, "connect", lambda **_: connect(kube.url, sleep=sleep))
            began = time.monotonic()
            model = launch.train_on_cluster(prepared.graph, run, config=settings, request=request)
            self.seconds = time.monotonic() - began
            self.restarts = sum(operator.restarts.values())
            self.log = [text for lines in kube.lines.values() for _, text in lines]
        self.digest = files.sha256_of_file(model / "model.safetensors")
        noted = map(json.loads, events.read_text().splitlines())
        self.steps = [line for line in noted if line["event"] == "fired" and line["rank"] == 0]
        leases = sorted(run.leases.glob("*.json"))
        self.starts = [files.read_json(path)["step"] for path in leases]

    @property
    def stalls(self):
        """Seconds between two steps of rank 0, where the second is of another process."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return [
            second["at"] - first["at"] - STEP_S
            for first, second in pairs
            if first["pid"] != second["pid"]
        ]


def test_pauses_of_the_kubelet_are_those_that_were_recorded():
    first, longest = BACKOFF
    backoff = Backoff(first=first, longest=longest)
    now, pauses = 1_000.0, []
    for _ in range(8):
        pauses.append(backoff.pause(now))
        now += pauses[-1] + 5
    assert pauses == [1, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.pause(now + 601) == 1


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    trained = Trained(prepared, tmp_path_factory.mktemp("undisturbed"))
    assert (len(trained.steps), trained.restarts) == (STEPS, 0)
    return trained


@pytest.mark.fault("F4", nightly=True)
@pytest.mark.fault("F44", nightly=True)
@pytest.mark.parametrize("victim", ["any", "first"])
def test_training_whose_pods_are_deleted_loses_little_time(
    prepared, undisturbed, tmp_path, victim, capsys
):
    chosen = random.Random(0)
    deletions = Deletions({"any": chosen.choice, "first": lambda pods: pods[0]}[victim])
    trained = Trained(prepared, tmp_path, deletions)
    goodput = undisturbed.seconds / trained.seconds
    facts = {
        "victim": victim,
        "deletions": len(deletions.times),
        "goodput": round(goodput, 3),
        "seconds": round(trained.seconds),
        "undisturbed_seconds": round(undisturbed.seconds),
        "container_restarts": trained.restarts,
        "steps_redone": len(trained.steps) - STEPS,
        "median_stall_seconds": round(statistics.median(trained.stalls), 1),
        "longest_stall_seconds": round(max(trained.stalls), 1),
    }
    with capsys.disabled():
        print(f"\n{json.dumps(facts)}")
    assert trained.digest == undisturbed.digest
    assert len(deletions.times) == DELETIONS
    assert goodput >= GOODPUT


@pytest.mark.fault("F6", nightly=True)
@pytest.mark.parametrize("victims", [["worker-0"], ["worker-1"], ["worker-0", "worker-1"]])
def test_drained_pods_save_their_step_and_repeat_none(prepared, tmp_path, victims):
    drained = []

    def drain(kube, operator):
        if drained or not is_half_done(tmp_path):
            return
        for pod in kube.list("pods"):
            if pod["metadata"]["name"].endswith(tuple(victims)):
                operator.delete_pod(NAMESPACE, pod["metadata"]["name"])
                drained.append(pod["metadata"]["uid"])

    trained = Trained(prepared, tmp_path, drain, steps=FEW_STEPS, validations=1)
    assert len(drained) == len(victims)
    stopped = [int(found[1]) for found in map(STOPPED.search, trained.log) if found]
    assert stopped == 2 * stopped[:1]
    assert trained.starts == [0, stopped[0]]
    assert len(trained.steps) == FEW_STEPS


@pytest.mark.fault("F33", nightly=True)
def test_node_that_starts_again_resumes_from_the_checkpoint(prepared, tmp_path):
    killed = []

    def reset(kube, operator):
        if killed or not is_half_done(tmp_path):
            return
        with operator.store.changed:
            for container in operator.containers.values():
                container.process.kill()
                killed.append(container.pod)

    changes = [f"recovery.checkpoint_steps={BETWEEN_CHECKPOINTS}"]
    trained = Trained(prepared, tmp_path, reset, *changes, steps=FEW_STEPS, validations=1)
    assert (len(killed), trained.restarts) == (2, 2)
    (start,) = trained.starts[1:]
    assert start in range(BETWEEN_CHECKPOINTS, FEW_STEPS, BETWEEN_CHECKPOINTS)
    assert 0 < len(trained.steps) - FEW_STEPS <= 2 * BETWEEN_CHECKPOINTS


def is_half_done(root):
    noted = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    return any(line["event"] == "fired" and line["step"] >= FEW_STEPS // 2 for line in noted)
