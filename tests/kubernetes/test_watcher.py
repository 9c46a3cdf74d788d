"""How a step creates its job, waits for it, and reports its end."""

import io
import threading
import time

import pytest
from clusters import (
    NAMESPACE,
    PYTORCHJOB,
    RAYJOB,
    TRAINJOB,
    close,
    connect,
    eventually,
    owner,
    watcher_of,
)
from fakes.kube_api import KubeApi
from fakes.operator import UNSCHEDULABLE, TrainingOperator

from citeflow import files
from citeflow.errors import (
    ConfigError,
    DataError,
    StoppedError,
    TrainingError,
    UnavailableError,
    error_to_dict,
)
from citeflow.kubernetes import logs, placement, watcher
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.launch import is_complete


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Wait moments for what takes minutes on a real cluster."""
    for name in ("VISIBILITY_DELAY_S", "COMPLETION_GRACE_S", "UNRECOVERABLE_S", "FOREIGN_JOB_S"):
        monkeypatch.setattr(watcher, name, 0.3)
    monkeypatch.setattr(watcher, "NO_SUCH_IMAGE_S", 0.3)
    monkeypatch.setattr(placement, "HOPELESS_S", 0.3)
    monkeypatch.setattr(placement, "ASK_AFTER_S", 0.0)
    monkeypatch.setattr(placement, "ASK_AGAIN_S", 0.05)
    monkeypatch.setattr(logs, "REOPEN_S", 0.1)


@pytest.fixture
def listen(monkeypatch):
    """Listen to stderr; pytest's capture may lose a line that is written while it is read."""

    def listen():
        stream = io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        return stream.getvalue

    return listen


class Step:
    """A train step on a thread, and the cluster that it works on."""

    def __init__(self, kube, operator, watched):
        self.kube = kube
        self.operator = operator
        self.watched = watched
        self.raised = None
        self.prepared = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.watched.train(self._prepare)
        except BaseException as error:
            self.raised = error

    def _prepare(self):
        self.prepared += 1

    def end(self):
        """Wait for the end of the step, and return what it raised."""
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.raised

    def job(self):
        return next(iter(self.kube.list("pytorchjobs")), None)

    def pods(self):
        """Wait for the pods of the job, and return their names."""

        def scheduled():
            pods = [pod for pod in self.kube.list("pods") if pod["spec"].get("nodeName")]
            return sorted(pod["metadata"]["name"] for pod in pods)

        return eventually(lambda: len(scheduled()) > 1 and scheduled())

    def running(self):
        """Start the pods of the job, and wait until the step has seen them."""
        names = self.pods()
        for name in names:
            self.operator.start(name)
        self.wait_for_poll()
        return names

    def wait_for_poll(self):
        polls = self.count("list", "pods")
        eventually(lambda: self.count("list", "pods") > polls + 1)

    def count(self, verb, resource="pytorchjobs"):
        seen = list(self.kube.requests)
        return sum((request.verb, request.resource) == (verb, resource) for request in seen)

    def complete(self):
        files.write_text(self.watched.run.model, "whole")

    def succeed(self, finished=None):
        self.complete()
        if finished:
            self.operator.finish(finished, 0)
        assert self.end() is None

    def fail(self, error):
        files.write_json(self.watched.run.error_file, error_to_dict(error))


@pytest.fixture
def start(kube, operator, client, tmp_path):
    def start(client=client, suspend=False, **options):
        watched = watcher_of(client, tmp_path, **options)
        if suspend:
            watched.job["spec"]["runPolicy"]["suspend"] = True  # as Kueue's webhook does
        return Step(kube, operator, watched)

    return start


def test_train_returns_when_the_model_is_complete(start, listen):
    stderr = listen()
    step = start()
    first, second = step.running()
    step.operator.write(first, "12:00:00 train[rank 0] starting")
    step.operator.write(second, "12:00:01 train[rank 1] starting")
    eventually(lambda: stderr().count("starting") == 2)
    step.succeed(first)
    assert step.prepared == 1
    assert "worker-0 | 12:00:00 train[rank 0] starting" in stderr()
    assert "worker-1 | 12:00:01 train[rank 1] starting" in stderr()
    assert "2 running" in stderr()


def test_train_with_a_model_needs_no_cluster(kube, client, tmp_path):
    watched = watcher_of(client, tmp_path)
    files.write_text(watched.run.model, "whole")
    watched.train(lambda: pytest.fail("prepared"))
    assert kube.requests == []


@pytest.mark.fault("F31")
@pytest.mark.parametrize("cleans_all", [False, True])
@pytest.mark.parametrize(("code", "model"), [(1, True), (0, False)])
def test_train_believes_the_model_not_exit_codes(start, operator, code, model, cleans_all):
    operator.cleans_all = cleans_all
    step = start(spec=JobSpec(restarts=2))
    first, second = step.running()
    if model:
        step.complete()
    operator.finish(second, 1)
    step.wait_for_poll()
    operator.finish(first, code)
    error = step.end()
    assert (error is None) == model
    if not model:
        assert isinstance(error, TrainingError)
        assert "ended with exit code: 1" in str(error)


CONDITIONS = [
    (PYTORCHJOB, "Succeeded"),
    (TRAINJOB, "Complete"),
    (RAYJOB, "Complete"),
    *((each, end) for each in (PYTORCHJOB, TRAINJOB, RAYJOB) for end in ("Failed", "deleted")),
]


@pytest.mark.fault("F31")
@pytest.mark.parametrize(("launcher", "condition"), CONDITIONS)
@pytest.mark.parametrize("model", ["whole", "cut", "of something else", "none"])
def test_train_believes_the_manifest_not_the_condition(
    kube, tmp_path, monkeypatch, launcher, condition, model
):
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 0.05)
    inputs = {"PreparedGraph": "a1"}
    ended = []

    def end_the_job(seconds):
        time.sleep(0.01)
        for job in kube.list(launcher.plural) if not ended else []:
            ended.append(condition)
            if model != "none":
                made_from = {} if model == "of something else" else inputs
                leave_model(watched.run.model, made_from, cut=model == "cut")
            if condition == "deleted":
                kube.remove(launcher.plural, NAMESPACE, job["metadata"]["name"])
            else:
                end = {"type": condition, "status": "True", "message": "as the test says"}
                of_ray = {"jobDeploymentStatus": condition, "jobStatus": "SUCCEEDED"}
                status = {"status": of_ray if launcher is RAYJOB else {"conditions": [end]}}
                kube.patch(launcher.plural, NAMESPACE, job["metadata"]["name"], status)

    client = connect(kube.url, sleep=end_the_job)
    watched = watcher_of(client, tmp_path, launcher=launcher, is_complete=lambda: complete())

    def complete():
        return is_complete(watched.run.model, inputs)

    error = Step(kube, None, watched).end()
    close(client)
    assert ended == [condition]
    assert (error is None) == (model == "whole")
    assert error is None or isinstance(error, TrainingError)


def leave_model(folder, inputs, *, cut):
    with files.new_directory(folder) as work:
        files.write_text(work / "model.safetensors", "weights")
        files.write_manifest(work, "TrainedModel", inputs=inputs, facts={})
    if cut:
        (folder / "model.safetensors").write_text("weight")


def test_train_waits_for_a_model_that_shows_late(start, operator, monkeypatch):
    monkeypatch.setattr(watcher, "VISIBILITY_DELAY_S", 5)
    step = start()
    for name in step.running():
        operator.finish(name, 0)
    eventually(lambda: PYTORCHJOB.status(step.job()).end)
    time.sleep(0.2)
    step.succeed()


def test_train_repeats_the_last_lines_of_the_pod_that_failed(start, operator, listen):
    stderr = listen()
    step = start(spec=JobSpec(restarts=0))
    _, second = step.running()
    operator.write(second, "out of memory, it seems")
    eventually(lambda: "it seems" in stderr())
    operator.finish(second, 137, "OOMKilled")
    message = f"error: no model: {second} ended with exit code: 137 (OOMKilled)"
    assert str(step.end()).startswith(message)
    assert "out of memory, it seems" in stderr().partition(f"--- last lines of {second}")[2]


def test_train_raises_the_error_of_a_worker_of_now(start, tmp_path):
    watched = tmp_path / "runs" / "run"
    files.write_json(watched / "error.json", error_to_dict(DataError("of before", "x")))
    step = start()
    step.running()
    step.fail(StoppedError("training was asked to stop", "step 3"))
    step.wait_for_poll()
    assert step.job() is not None
    step.fail(DataError("a graph without citations", "x"))
    error = step.end()
    assert isinstance(error, DataError)
    assert "without citations" in str(error)
    assert step.job() is None


def test_train_ends_when_a_pod_of_now_can_not_start(start, operator, kube):
    step = start()
    name = step.pods()[0]
    operator.hold(name, "ImagePullBackOff")
    step.wait_for_poll()
    kube.remove("pods", NAMESPACE, name)
    eventually(lambda: kube.get("pods", NAMESPACE, name))
    step.running()
    time.sleep(0.4)
    assert step.job() is not None
    operator.hold(name, "ErrImageNeverPull")
    assert "ErrImageNeverPull" in str(step.end())
    assert step.job() is None


@pytest.mark.fault("F41")
@pytest.mark.parametrize("state", ["err_image_pull", "image_pull_back_off"])
def test_train_names_an_image_that_is_not_there(start, operator, state):
    step = start()
    operator.replay(step.pods()[0], state)
    error = step.end()
    assert str(error).startswith("error: no image for the pods: nosuch/image:1: ")
    assert "lookup registry-1.docker.io on 10.255.255.53:53: no such host" in error.value
    assert ("docs/images.md" in error.hint, error.exit_code) == (True, 75)


@pytest.mark.fault("F41")
def test_train_names_a_volume_that_can_not_be_mounted(start, operator, listen, monkeypatch):
    monkeypatch.setattr(placement, "MOUNT_S", 0.5)
    stderr = listen()
    step = start()
    words = 'MountVolume.SetUp failed for volume "citeflow-data": hostPath type check failed'
    operator.report(NAMESPACE, step.pods()[0], "FailedMount", words)
    eventually(lambda: f"are=2 pending, ContainerCreating, {words}" in stderr())
    assert str(step.end()).startswith(f"error: no volume for the pods: {words}\nhint: ")


def test_train_waits_for_an_image_after_a_volume_was_late(start, operator, monkeypatch):
    monkeypatch.setattr(placement, "MOUNT_S", 0.3)
    step = start()
    for reason in ("FailedMount", "Pulling"):
        operator.report(NAMESPACE, step.pods()[0], reason, "timed out, or image")
    step.wait_for_poll()
    time.sleep(0.5)
    assert step.job() is not None
    step.succeed()


# Pods without a place

QUICK = {"unschedulable_minutes": 0.01}
SCHEDULER = "0/1 nodes are available: 1 Insufficient cpu."
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "kit"}, "spec": {}}


@pytest.fixture
def full(operator):
    operator.places = 0
    return operator


@pytest.mark.fault("F41")
def test_train_ends_in_the_words_of_the_scheduler(start, full, listen):
    stderr = listen()
    assert UNSCHEDULABLE["message"].startswith(SCHEDULER)
    step = start(spec=JobSpec(**QUICK))
    eventually(lambda: f"are=2 pending, {SCHEDULER}" in stderr())
    error = step.end()
    assert isinstance(error, TrainingError)
    assert f"0 of 2 have one: {SCHEDULER}" in str(error)
    assert "unschedulable_minutes" in error.hint
    assert step.job() is None


@pytest.mark.fault("F41")
@pytest.mark.parametrize("answer", ["too small", "adds a node", "forbidden"])
def test_train_ends_at_once_where_no_node_is_large_enough(start, kube, full, answer):
    if answer == "forbidden":
        kube.fail(99, status=403, resource="nodes")
    kube.put({**NODE, "status": {"allocatable": {"cpu": "1930m", "memory": "8Gi"}}})
    step = start(spec=JobSpec(cpu="16"))
    if answer == "adds a node":
        for pod in eventually(lambda: kube.list("pods")):
            full.report(NAMESPACE, pod["metadata"]["name"], "TriggeredScaleUp", "1->2 (max: 5)")
    if answer == "too small":
        error = f"error: no node is large enough for a pod: cpu 16 of at most 1930m ({SCHEDULER})"
        assert str(step.end()).startswith(error)
        return
    step.wait_for_poll()
    time.sleep(0.5)
    assert step.job() is not None
    step.succeed()


@pytest.mark.fault("F41")
@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ("exceeded quota: team, requested: cpu=2", "0 of 2 have one", "larger quota"),
        ('violates PodSecurity "restricted:latest"', "the cluster refuses the pods", "doctor"),
        (
            "no PriorityClass with name a was found",
            "the cluster refuses the pods",
            "priority_class",
        ),
    ],
)
def test_train_says_why_pods_are_refused(
    kube, client, tmp_path, launcher, listen, words, error, hint
):
    stderr = listen()
    with TrainingOperator(kube) as operator:
        operator.refusal = words
        spec = JobSpec(unschedulable_minutes=0.02)
        step = Step(kube, operator, watcher_of(client, tmp_path, launcher=launcher, spec=spec))
        eventually(lambda: "are=no pods yet, pods" in stderr())
        raised = step.end()
    assert error.replace("of 2", f"of {launcher.num_pods(spec)}") in raised.what
    assert words in raised.value
    assert words in stderr()
    assert hint in raised.hint


@pytest.mark.fault("F41")
def test_train_ends_where_no_operator_makes_pods(kube, client, tmp_path, launcher):
    spec = JobSpec(unschedulable_minutes=0.01)
    step = Step(kube, None, watcher_of(client, tmp_path, launcher=launcher, spec=spec))
    assert str(step.end()).startswith(f"error: nothing makes pods for the {launcher.kind}: ")
    assert kube.list(launcher.plural) == []


@pytest.mark.fault("F43")
def test_train_gives_back_a_part_of_its_places_and_begins_again(start, kube, operator, listen):
    stderr = listen()
    operator.places = 1
    step = start(spec=JobSpec(**QUICK))
    first = eventually(step.job)["metadata"]["uid"]
    eventually(lambda: "gives back its places" in stderr())
    operator.places = 2
    eventually(lambda: step.job() and step.job()["metadata"]["uid"] != first)
    step.running()
    step.succeed()
    assert step.prepared > 1


@pytest.mark.fault("F43")
def test_train_gives_back_its_places_three_times_at_most(start, operator, monkeypatch):
    monkeypatch.setattr(watcher, "BEGIN_AGAIN_S", (0.0, 0.1))
    operator.places = 1
    step = start(spec=JobSpec(**QUICK))
    assert f"1 of 2 have one: {SCHEDULER}" in str(step.end())
    assert step.count("create") == placement.MAX_PARTIAL_TRIES


def test_train_bounds_the_restarts_of_a_trainjob(kube, operator, client, tmp_path):
    head = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime"}
    node = {"name": "node", "template": {"spec": {"backoffLimit": 100_000}}}
    spec = {"template": {"spec": {"replicatedJobs": [node]}}}
    kube.put({**head, "metadata": {"name": "citeflow"}, "spec": spec})
    watched = watcher_of(client, tmp_path, launcher=TRAINJOB, spec=JobSpec(restarts=1))
    step = Step(kube, operator, watched)
    first, _ = step.running()
    for restarts in range(3):
        operator.finish(first, 1)
        eventually(lambda n=restarts: restarts_of(kube, first) > n)
    assert str(step.end()).startswith("error: too many restarts of the pods' containers: 3")
    assert kube.list("trainjobs") == []


def restarts_of(kube, name):
    pod = kube.get("pods", NAMESPACE, name)
    return pod["status"]["containerStatuses"][0]["restartCount"] if pod else 99


# Memory


@pytest.mark.fault("F42")
@pytest.mark.parametrize("progresses", [False, True])
def test_train_ends_after_two_kills_for_memory_without_progress(
    start, operator, listen, progresses
):
    stderr = listen()
    step = start()
    first, _ = step.running()
    operator.replay(first, "oom_killed")
    eventually(lambda: "are=2 running, 3 restarts, OOMKilled" in stderr())
    if progresses:
        (step.watched.run.checkpoints / "step-00000100").mkdir(parents=True)
    operator.replay(first, "oom_back_off")
    eventually(lambda: "OOMKilled, CrashLoopBackOff" in stderr())
    operator.replay(first, "oom_running")
    if progresses:
        time.sleep(0.5)
        assert step.job() is not None
        step.succeed()
        return
    assert str(step.end()) == "error: out of memory: limit 2Gi"
    assert step.job() is None


def test_train_waits_for_a_queue(start, operator, kube, listen):
    stderr = listen()
    step = start(suspend=True, spec=JobSpec(queue="lab"))
    eventually(lambda: "waits in its queue" in stderr())
    resumed = {"spec": {"runPolicy": {"suspend": False}}}
    kube.patch("pytorchjobs", NAMESPACE, step.job()["metadata"]["name"], resumed)
    step.running()
    step.succeed()


def test_train_ends_an_overdue_job(kube, client, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "OVERDUE_S", 0.2)
    watched = watcher_of(client, tmp_path, spec=JobSpec(deadline_hours=1 / 3600))
    assert "passed its deadline" in str(Step(kube, None, watched).end())
    assert kube.list("pytorchjobs") == []


# A step that is repeated


def create(client, tmp_path, **options):
    watched = watcher_of(client, tmp_path, **options)
    assert client.create(PYTORCHJOB, watched.job)


@pytest.mark.fault("F30")
def test_train_adopts_a_job_even_if_it_changes(start, kube, client, tmp_path):
    create(client, tmp_path, owner=owner(kube, "step-1"))
    touched = []

    def touch(number, request, phase):
        if request.verb == "patch" and phase == "before" and not touched:
            touched.append(1)
            metadata = {"annotations": {"touched": "meanwhile"}}
            kube.patch("pytorchjobs", NAMESPACE, request.name, {"metadata": metadata})

    kube.on_request(touch)
    step = start(owner=owner(kube, "step-2"))
    eventually(lambda: len(step.job()["metadata"]["ownerReferences"]) == 2)
    kube.remove("pods", NAMESPACE, "step-1")
    assert step.job() is not None
    step.succeed()
    assert (step.count("patch"), step.count("create"), step.prepared) == (2, 1, 0)


def test_train_replaces_a_job_that_ended_without_a_model(start, operator, client, kube, tmp_path):
    create(client, tmp_path, spec=JobSpec(restarts=0))
    first = Step.pods(Step(kube, operator, watcher_of(client, tmp_path, is_complete=lambda: True)))
    operator.start(first[0])
    operator.finish(first[0], 1)
    eventually(lambda: PYTORCHJOB.status(kube.list("pytorchjobs")[0]).end)
    old = kube.list("pytorchjobs")[0]["metadata"]["uid"]
    step = start(spec=JobSpec(restarts=0))
    eventually(lambda: step.job() and step.job()["metadata"]["uid"] != old)
    step.succeed()


@pytest.mark.parametrize("change", [{"run_id": "another"}, {"spec": JobSpec(workers=3)}])
def test_train_leaves_foreign_jobs_alone(kube, client, tmp_path, change):
    create(client, tmp_path)
    before = kube.list("pytorchjobs")
    watched = watcher_of(client, tmp_path, **change)
    with pytest.raises(ConfigError, match="there is a PyTorchJob of this name"):
        watched.train(lambda: None)
    assert kube.list("pytorchjobs") == before


def test_train_leaves_the_job_alone_that_replaced_its_own(start, kube, client, tmp_path):
    step = start()
    step.pods()
    with kube.store.changed:  # between two polls
        kube.remove("pytorchjobs", NAMESPACE, step.job()["metadata"]["name"])
        kube.put(watcher_of(client, tmp_path, run_id="another").job)
    assert "ended without a model: it was deleted" in str(step.end())
    assert step.job()["metadata"]["labels"]["pipeline/runid"] == "another"


def test_train_does_not_wait_for_ever_for_a_job_to_go(kube, client, tmp_path):
    create(client, tmp_path)
    name = kube.list("pytorchjobs")[0]["metadata"]["name"]
    deleting = {"metadata": {"deletionTimestamp": "2026-11-28T12:00:00Z"}}
    kube.patch("pytorchjobs", NAMESPACE, name, deleting)
    with pytest.raises(ConfigError, match="is deleted, but does not go"):
        watcher_of(client, tmp_path).train(lambda: None)
    assert "delete" not in {request.verb for request in kube.requests}


def test_train_waits_for_a_foreign_job(start, kube, client, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "FOREIGN_JOB_S", 20)
    create(client, tmp_path, run_id="an-earlier-run")
    step = start()
    eventually(lambda: step.count("get") > 2)
    old = step.job()["metadata"]
    kube.remove("pytorchjobs", NAMESPACE, old["name"])
    eventually(lambda: step.job() and step.job()["metadata"]["uid"] != old["uid"])
    step.succeed()


# An API that does not answer as it should


@pytest.mark.fault("F30")
@pytest.mark.parametrize("trouble", [429, 500, "cut"])
@pytest.mark.parametrize("handled", [False, True])
def test_train_outlasts_transient_errors(start, kube, operator, trouble, handled):
    places = [("pytorchjobs", "get"), ("pytorchjobs", "create"), ("pods", "list")]
    faults = [
        kube.drop(1, resource=resource, verb=verb, handled=handled)
        if trouble == "cut"
        else kube.fail(2, resource=resource, verb=verb, status=trouble, handled=handled)
        for resource, verb in [*places, ("pods/log", "get")]
    ]
    step = start()
    first, _ = step.running()
    operator.write(first, "begins")
    eventually(lambda: all(fault.fired for fault in faults))
    step.succeed(first)
    assert len(kube.list("pytorchjobs")) == 1


@pytest.mark.fault("F30")
def test_train_outlasts_an_outage_with_few_requests(start, kube, monkeypatch):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        time.sleep(0.005)
        if now[0] > 100:
            kube.recover()

    monkeypatch.setattr("citeflow.utils.retry.time.monotonic", lambda: now[0])
    client = connect(kube.url, sleep=sleep, patience_s=900)
    step = start(client)
    step.running()
    started = time.time()
    now[0] = 40.0
    kube.outage()
    while now[0] <= 100 or kube.is_refused():
        assert time.time() < started + 20
        time.sleep(0.005)
    assert 3 <= len(kube.refused) <= 40
    step.succeed()
    assert step.count("create") == 1
    close(client)


def test_train_reports_an_api_that_stays_away(start, kube):
    client = connect(kube.url, patience_s=0.2)
    step = start(client)
    eventually(step.job)
    kube.outage()
    assert isinstance(step.end(), UnavailableError)
    assert step.job() is not None
    close(client)


@pytest.mark.fault("F30")
def test_train_polls_rarely(kube, operator, tmp_path, monkeypatch):
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        time.sleep(0.01)

    monkeypatch.setattr(placement, "ASK_AFTER_S", 5.0)
    monkeypatch.setattr(placement, "ASK_AGAIN_S", 30.0)
    monkeypatch.setattr(placement, "HOPELESS_S", 1e9)
    operator.places = 0
    kube.put({**NODE, "status": {"allocatable": {"cpu": "100m", "memory": "8Gi"}}})
    client = connect(kube.url, sleep=sleep)
    watched = watcher_of(client, tmp_path, clock=lambda: sum(slept))
    step = Step(kube, operator, watched)
    eventually(lambda: sum(slept) > 50 and step.count("list", "nodes"))
    operator.places = 2
    step.running()
    eventually(lambda: len(slept) > 20)
    step.succeed()
    polls = [seen for seen in kube.requests if seen.resource and seen.resource != "pods/log"]
    assert len(polls) / (sum(slept) / 60) <= 20
    close(client)


def test_train_without_the_operator_is_refused(tmp_path):
    with KubeApi(without=["pytorchjobs"]) as kube:
        client = connect(kube.url)
        with pytest.raises(ConfigError, match="the cluster does not know: PyTorchJob in kubeflow"):
            watcher_of(client, tmp_path).train(lambda: None)
        close(client)
