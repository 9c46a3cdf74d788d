"""How a step creates its job, stays with it, and tells how it ended."""

import functools
import io
import threading
import time

import pytest
from clusters import NAMESPACE, connect, launch_of, owner
from fakes.kube_api import KubeApi
from kubernetes.client import ApiException

from citeflow import files
from citeflow.errors import (
    ConfigError,
    DataError,
    StoppedError,
    TrainingError,
    UnavailableError,
    error_to_dict,
)
from citeflow.kubernetes import job_objects as jobs
from citeflow.kubernetes import job_status, logs, watcher
from citeflow.kubernetes import launch as train
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.watcher import run

clock = time.monotonic


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What takes a minute on a real file system takes a moment here."""
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 0.3)
    monkeypatch.setattr(watcher, "STRAGGLERS_S", 0.3)
    monkeypatch.setattr(watcher, "HOPELESS_S", 0.3)
    monkeypatch.setattr(watcher, "FOREIGN_S", 0.3)
    monkeypatch.setattr(logs, "AGAIN_S", 0.1)


def listen(monkeypatch):
    """What is written to stderr from now on; pytest's own capture may lose a line that is written while it is read."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    return stream.getvalue


def started(target, *args):
    """Run something on a thread; returns what waits for it and gives back what it raised."""
    raised = []

    def call():
        try:
            target(*args)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()

    def end():
        thread.join(20)
        assert not thread.is_alive()
        return raised[0] if raised else None

    return end


def eventually(condition):
    until = clock() + 10
    while not (found := condition()):
        assert clock() < until
        time.sleep(0.01)
    return found


def job_in(kube):
    jobs = kube.list("pytorchjobs")
    return jobs[0] if jobs else None


def running(kube, operator):
    """Wait for the pods of the job, and start them; returns their names."""
    names = eventually(
        lambda: sorted(
            p["metadata"]["name"] for p in kube.list("pods") if p["spec"].get("nodeName")
        )
    )
    for name in names:
        operator.start(name)
    wait_for_a_look(kube)
    return names


def wait_for_a_look(kube):
    """Wait until the launcher has seen the pods as they are now."""
    looks = count(kube, "list", "pods")
    eventually(lambda: count(kube, "list", "pods") > looks + 1)


def count(kube, verb, resource="pytorchjobs"):
    return sum((request.verb, request.resource) == (verb, resource) for request in kube.requests)


def test_a_job_that_made_its_model_is_well(kube, operator, api, tmp_path, monkeypatch):
    told = listen(monkeypatch)
    prepared = []
    end = started(run, launch_of(api, tmp_path), lambda: prepared.append(1))
    first, second = running(kube, operator)
    operator.write(first, "12:00:00 train[0] starting")
    operator.write(second, "12:00:01 train[1] starting")
    eventually(lambda: told().count("starting") == 2)
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    assert end() is None
    assert prepared == [1]
    assert "worker-0 | 12:00:00 train[0] starting" in told()
    assert "worker-1 | 12:00:01 train[1] starting" in told()
    assert "2 running" in told()


def test_a_model_that_is_there_needs_no_cluster(kube, api, tmp_path):
    files.write_text(tmp_path / "model", "whole")
    run(launch_of(api, tmp_path), lambda: pytest.fail("prepared"))
    assert kube.requests == []


@pytest.mark.fault("F31")
@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("model", [True, False])
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("cleans_all", [False, True])
def test_the_model_decides_and_not_the_exit_codes(
    kube, operator, api, tmp_path, figure, code, model, others, cleans_all
):
    operator.cleans_all_at_limit = cleans_all
    end = started(run, launch_of(api, tmp_path, spec=JobSpec(restarts=2)), lambda: None)
    first, second = running(kube, operator)
    if model:
        files.write_text(tmp_path / "model", "whole")
    operator.finish(second, others)
    if others:
        wait_for_a_look(kube)
    operator.finish(first, code)
    error = end()
    figure(combinations=1, wrong=int((error is None) != model))
    assert (error is None) == model
    if not model:
        assert isinstance(error, TrainingError)
        assert ("ended with exit code: 1" if others else "error: ") in str(error)


CONDITIONS = [
    (jobs.PYTORCH_JOB, "Succeeded"),
    (jobs.TRAIN_JOB, "Complete"),
    *[
        (kind, condition)
        for kind in (jobs.PYTORCH_JOB, jobs.TRAIN_JOB)
        for condition in ("Failed", "deleted")
    ],
]


@pytest.mark.fault("F31")
@pytest.mark.parametrize(("kind", "condition"), CONDITIONS)
@pytest.mark.parametrize("model", ["whole", "cut", "of something else", "none"])
def test_the_manifest_decides_and_not_the_condition(
    kube, tmp_path, monkeypatch, figure, kind, condition, model
):
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 0.05)
    plural, inputs, said = f"{kind.lower()}s", {"PreparedGraph": "a1"}, []

    def end_the_job(seconds):
        time.sleep(0.01)
        for name in [job["metadata"]["name"] for job in kube.list(plural) if not said]:
            if model != "none":
                leave_a_model(
                    tmp_path / "model",
                    {} if model == "of something else" else inputs,
                    cut=model == "cut",
                )
            said.append(condition)
            end_as(kube, plural, name, condition)

    api = connect(kube.url, sleep=end_the_job)
    whole = functools.partial(train.is_complete, tmp_path / "model", inputs)
    error = started(run, launch_of(api, tmp_path, kind=kind, is_complete=whole), lambda: None)()
    api.client.rest_client.pool_manager.clear()
    wrong = (error is None) != (model == "whole")
    figure(
        combinations=1,
        contradicted=int(
            (condition in job_status.ENDS) and job_status.ENDS[condition] != (not error)
        ),
    )
    figure(wrong=int(wrong))
    assert said == [condition]
    assert not wrong
    assert error is None or isinstance(error, TrainingError)


def end_as(kube, plural, name, condition):
    """Let a job say that it has ended, or be gone."""
    if condition == "deleted":
        kube.remove(plural, NAMESPACE, name)
    else:
        ended = {"type": condition, "status": "True", "message": "as the test says"}
        kube.patch(plural, NAMESPACE, name, {"status": {"conditions": [ended]}})


def leave_a_model(folder, inputs, *, cut):
    """A model as workers leave it, or one that was cut afterwards."""
    with files.new_directory(folder) as work:
        files.write_text(work / "model.safetensors", "weights")
        files.write_manifest(work, "TrainedModel", inputs=inputs, facts={})
    if cut:
        (folder / "model.safetensors").write_text("weight")


def test_a_model_that_shows_late_is_waited_for(kube, operator, api, tmp_path, monkeypatch):
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 5)
    end = started(run, launch_of(api, tmp_path), lambda: None)
    for name in running(kube, operator):
        operator.finish(name, 0)
    eventually(lambda: job_status.end_of(job_in(kube)))
    time.sleep(0.2)
    files.write_text(tmp_path / "model", "whole")
    assert end() is None


def test_a_job_that_does_not_end_with_its_model_is_ended(kube, operator, api, tmp_path):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    running(kube, operator)
    files.write_text(tmp_path / "model", "whole")
    assert end() is None
    assert job_in(kube) is None


def test_the_pod_that_failed_is_told_with_its_last_lines(
    kube, operator, api, tmp_path, monkeypatch
):
    told = listen(monkeypatch)
    end = started(run, launch_of(api, tmp_path, spec=JobSpec(restarts=0)), lambda: None)
    _, second = running(kube, operator)
    operator.write(second, "out of memory, it seems")
    eventually(lambda: "it seems" in told())
    operator.finish(second, 137, "OOMKilled")
    error = end()
    assert str(error).startswith(f"error: no model: {second} ended with exit code: 137 (OOMKilled)")
    assert "out of memory, it seems" in told().partition(f"--- last lines of {second}")[2]


def test_an_error_that_a_worker_left_ends_the_job_and_is_the_step_s(kube, operator, api, tmp_path):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    running(kube, operator)
    files.write_json(
        tmp_path / "error.json", error_to_dict(DataError("a graph without citations", "x"))
    )
    error = end()
    assert isinstance(error, DataError)
    assert job_in(kube) is None


def test_a_worker_that_was_only_stopped_ends_nothing(kube, operator, api, tmp_path):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    first, _ = running(kube, operator)
    files.write_json(
        tmp_path / "error.json", error_to_dict(StoppedError("training was asked to stop", "step 3"))
    )
    time.sleep(0.3)
    assert job_in(kube) is not None
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    assert end() is None


def test_an_error_of_an_earlier_attempt_is_forgotten(kube, operator, api, tmp_path):
    files.write_json(tmp_path / "error.json", error_to_dict(DataError("of before", "x")))
    end = started(run, launch_of(api, tmp_path), lambda: None)
    first, _ = running(kube, operator)
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    assert end() is None


def test_pods_that_can_not_start_end_the_wait(kube, operator, api, tmp_path):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    name = eventually(
        lambda: [p["metadata"]["name"] for p in kube.list("pods") if p["spec"].get("nodeName")]
    )[0]
    operator.hold(name, "ErrImageNeverPull", "not present")
    error = end()
    assert "ErrImageNeverPull" in str(error)
    assert job_in(kube) is None


def test_a_pod_that_could_not_start_and_was_replaced_ends_nothing(kube, operator, api, tmp_path):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    name = eventually(
        lambda: [p["metadata"]["name"] for p in kube.list("pods") if p["spec"].get("nodeName")]
    )[0]
    operator.hold(name, "ImagePullBackOff", "a registry that is away")
    time.sleep(0.1)
    kube.remove("pods", NAMESPACE, name)
    eventually(lambda: kube.get("pods", NAMESPACE, name))
    running(kube, operator)
    time.sleep(0.6)
    assert job_in(kube) is not None
    files.write_text(tmp_path / "model", "whole")
    assert end() is None


def test_a_pod_that_finds_no_node_is_told_and_waited_for(
    kube, operator, api, tmp_path, monkeypatch
):
    told = listen(monkeypatch)
    end = started(run, launch_of(api, tmp_path), lambda: None)
    names = eventually(
        lambda: [p["metadata"]["name"] for p in kube.list("pods") if p["spec"].get("nodeName")]
    )
    operator.keep_unscheduled(names[0], "0/1 nodes are available: 1 Insufficient cpu.")
    eventually(lambda: "Insufficient cpu" in told())
    assert job_in(kube) is not None
    files.write_text(tmp_path / "model", "whole")
    assert end() is None


def test_a_job_that_waits_in_a_queue_is_waited_for(kube, operator, api, tmp_path, monkeypatch):
    told = listen(monkeypatch)
    given = launch_of(api, tmp_path, spec=JobSpec(queue="lab"))
    given.job["spec"]["runPolicy"]["suspend"] = True  # as Kueue's webhook does
    end = started(run, given, lambda: None)
    eventually(lambda: "waits in its queue" in told())
    name = job_in(kube)["metadata"]["name"]
    kube.patch("pytorchjobs", NAMESPACE, name, {"spec": {"runPolicy": {"suspend": False}}})
    first, _ = running(kube, operator)
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    assert end() is None


@pytest.mark.fault("F30")
def test_a_job_that_somebody_deleted_is_missed(kube, operator, api, tmp_path, figure):
    end = started(run, launch_of(api, tmp_path), lambda: None)
    running(kube, operator)
    kube.remove("pytorchjobs", NAMESPACE, job_in(kube)["metadata"]["name"])
    assert "it was deleted" in str(end())
    figure(jobs_deleted_by_hand=1)


def test_a_launcher_that_is_stopped_takes_its_job_along(kube, operator, api, tmp_path):
    def stop(seconds):
        if job_in(kube):
            raise KeyboardInterrupt

    end = started(run, launch_of(connect(kube.url, sleep=stop), tmp_path), lambda: None)
    assert isinstance(end(), KeyboardInterrupt)
    assert job_in(kube) is None


# A step that is repeated


def test_a_repeated_step_takes_its_job_over_and_owns_it_too(kube, operator, api, tmp_path):
    first_owner, second_owner = owner(kube, "step-1"), owner(kube, "step-2")
    api.create(launch_of(api, tmp_path, owner=first_owner).job)
    end = started(
        run, launch_of(api, tmp_path, owner=second_owner), lambda: pytest.fail("prepared")
    )
    eventually(lambda: len(job_in(kube)["metadata"]["ownerReferences"]) == 2)
    kube.remove("pods", NAMESPACE, "step-1")
    names = eventually(
        lambda: sorted(p["metadata"]["name"] for p in kube.list("pods") if "worker" in str(p))
    )
    eventually(lambda: all(kube.get("pods", NAMESPACE, name) for name in names))
    assert job_in(kube) is not None
    files.write_text(tmp_path / "model", "whole")
    assert end() is None
    assert count(kube, "create") == 1


def test_a_job_goes_when_all_the_pods_that_own_it_are_gone(kube, operator, api, tmp_path):
    api.create(launch_of(api, tmp_path, owner=owner(kube, "step-1")).job)
    kube.remove("pods", NAMESPACE, "step-1")
    assert job_in(kube) is None


@pytest.mark.fault("F30")
def test_two_attempts_that_take_over_at_once_both_own_the_job(
    kube, operator, api, tmp_path, figure
):
    api.create(launch_of(api, tmp_path, owner=owner(kube, "step-1")).job)
    name = job_in(kube)["metadata"]["name"]
    touched = []

    def touch(number, request, phase):
        if request.verb == "patch" and phase == "before" and not touched:
            touched.append(1)
            kube.patch(
                "pytorchjobs",
                NAMESPACE,
                name,
                {"metadata": {"annotations": {"touched": "meanwhile"}}},
            )

    kube.on_request(touch)
    files_ready = launch_of(api, tmp_path, owner=owner(kube, "step-2"))
    end = started(run, files_ready, lambda: None)
    eventually(lambda: len(job_in(kube)["metadata"]["ownerReferences"]) == 2)
    files.write_text(tmp_path / "model", "whole")
    error = end()
    figure(patches_in_conflict=len(touched), false_failures=int(error is not None))
    assert error is None
    assert touched
    assert count(kube, "patch") == 2


def test_a_job_that_ended_without_a_model_is_made_anew(kube, operator, api, tmp_path):
    api.create(launch_of(api, tmp_path, spec=JobSpec(restarts=0)).job)
    first = eventually(
        lambda: [p["metadata"]["name"] for p in kube.list("pods") if p["spec"].get("nodeName")]
    )[0]
    operator.start(first)
    operator.finish(first, 1)
    eventually(lambda: job_status.end_of(job_in(kube)))
    old = job_in(kube)["metadata"]["uid"]
    end = started(run, launch_of(api, tmp_path, spec=JobSpec(restarts=0)), lambda: None)
    eventually(lambda: job_in(kube) and job_in(kube)["metadata"]["uid"] != old)
    files.write_text(tmp_path / "model", "whole")
    assert end() is None


@pytest.mark.parametrize("change", [{"run_id": "another"}, {"spec": JobSpec(workers=3)}])
def test_another_s_job_of_the_same_name_is_not_touched(kube, api, tmp_path, change):
    api.create(launch_of(api, tmp_path).job)
    given = launch_of(api, tmp_path, **change)
    given.job["metadata"]["name"] = job_in(kube)["metadata"]["name"]
    before = job_in(kube)
    with pytest.raises(ConfigError, match="there is a PyTorchJob of this name"):
        run(given, lambda: None)
    assert job_in(kube) == before


def test_the_job_of_another_run_with_the_same_folder_is_waited_for(
    kube, operator, api, tmp_path, monkeypatch
):
    monkeypatch.setattr(watcher, "FOREIGN_S", 20)
    api.create(launch_of(api, tmp_path, run_id="an-earlier-run").job)
    told = listen(monkeypatch)
    end = started(run, launch_of(api, tmp_path), lambda: None)
    eventually(lambda: "waits for another run of this name" in told())
    old = job_in(kube)["metadata"]
    kube.remove("pytorchjobs", NAMESPACE, old["name"])
    eventually(lambda: job_in(kube) and job_in(kube)["metadata"]["uid"] != old["uid"])
    files.write_text(tmp_path / "model", "whole")
    assert end() is None


def test_a_job_past_its_deadline_is_ended_where_its_operator_does_not(
    kube, api, tmp_path, monkeypatch
):
    monkeypatch.setattr(watcher, "OVERDUE_S", 0.2)
    end = started(
        run, launch_of(api, tmp_path, spec=JobSpec(deadline_hours=1 / 3600)), lambda: None
    )
    assert "passed its deadline" in str(end())
    assert job_in(kube) is None


def test_a_cluster_without_the_operator_is_told(tmp_path):
    with KubeApi(without=["pytorchjobs"]) as kube:
        api = connect(kube.url)
        with pytest.raises(ConfigError, match="the cluster does not know: PyTorchJob in kubeflow"):
            run(launch_of(api, tmp_path), lambda: None)
        api.client.rest_client.pool_manager.clear()


# An API that does not answer as it should


def test_a_connection_that_ends_while_tls_is_agreed_upon_is_made_again(kube, api, monkeypatch):
    errors = [ApiException(status=0, reason="SSLError: UNEXPECTED_EOF_WHILE_READING")]
    request = api.client.request

    def cut_once(*args, **given):
        if errors:
            raise errors.pop()
        return request(*args, **given)

    monkeypatch.setattr(api.client, "request", cut_once)
    assert api.get("PyTorchJob", "x") is None
    errors.append(ApiException(status=0, reason="SSLError: CERTIFICATE_VERIFY_FAILED"))
    with pytest.raises(ConfigError):
        api.get("PyTorchJob", "x")


@pytest.mark.fault("F30")
@pytest.mark.parametrize("status", [408, 410, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("handled", [False, True])
def test_errors_that_pass_are_waited_for(kube, operator, api, tmp_path, figure, status, handled):
    faults = [
        kube.fail(2, resource=resource, verb=verb, status=status, handled=handled)
        for resource, verb in [
            ("pytorchjobs", "get"),
            ("pytorchjobs", "create"),
            ("pods", "list"),
            ("pods/log", "get"),
        ]
    ]
    end = started(run, launch_of(api, tmp_path), lambda: None)
    first, _ = running(kube, operator)
    operator.write(first, "begins")
    eventually(lambda: all(fault.fired for fault in faults))
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    error = end()
    figure(
        errors_answered=sum(fault.fired for fault in faults), false_failures=int(error is not None)
    )
    assert error is None
    assert len(kube.list("pytorchjobs")) == 1


@pytest.mark.fault("F30")
@pytest.mark.parametrize("handled", [False, True])
def test_connections_that_are_cut_are_made_again(kube, operator, api, tmp_path, figure, handled):
    faults = [
        kube.drop(1, resource=r, verb=v, handled=handled)
        for r, v in [("pytorchjobs", "create"), ("pods", "list")]
    ]
    end = started(run, launch_of(api, tmp_path), lambda: None)
    first, _ = running(kube, operator)
    eventually(lambda: all(fault.fired for fault in faults))
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    error = end()
    figure(
        connections_cut=sum(fault.fired for fault in faults), false_failures=int(error is not None)
    )
    assert error is None
    assert len(kube.list("pytorchjobs")) == 1


@pytest.mark.fault("F30")
def test_logs_that_are_cut_end_nothing(kube, operator, api, tmp_path, figure, monkeypatch):
    told, cuts = listen(monkeypatch), 0
    end = started(run, launch_of(api, tmp_path), lambda: None)
    first, _ = running(kube, operator)
    for cuts in range(1, 5):
        operator.write(first, f"line {cuts}")
        eventually(lambda line=f"line {cuts}": line in told())
        kube.cut_streams(abruptly=cuts % 2 == 0)
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    error = end()
    figure(logs_cut=cuts, false_failures=int(error is not None))
    assert error is None
    assert told().count("| line ") == cuts


def test_a_server_that_says_when_to_come_back_is_obeyed(kube, tmp_path):
    slept = []
    api = connect(kube.url, sleep=slept.append)
    kube.fail(1, status=429, headers={"Retry-After": "7"})
    assert api.get("PyTorchJob", "x") is None
    assert slept == [7.0]
    api.client.rest_client.pool_manager.clear()


@pytest.mark.fault("F30")
def test_an_outage_of_a_minute_ends_nothing_and_asks_rarely(
    kube, operator, tmp_path, figure, monkeypatch
):
    now = [0.0]

    def sleep(seconds):
        now[0] += seconds
        time.sleep(0.005)
        if now[0] > 100:
            kube.recover()

    api = connect(kube.url, sleep=sleep, patience_s=900)
    monkeypatch.setattr("citeflow.kubernetes.client.time.monotonic", lambda: now[0])
    end = started(run, launch_of(api, tmp_path), lambda: None)
    eventually(lambda: job_in(kube))
    now[0] = 40.0
    kube.outage()
    eventually(lambda: now[0] > 100 and not kube.is_refused())
    assert 3 <= len(kube.refused) <= 20
    files.write_text(tmp_path / "model", "whole")
    error = end()
    figure(
        requests_in_an_outage_of_60_s=float(len(kube.refused)),
        false_failures=int(error is not None),
    )
    assert error is None
    assert count(kube, "create") == 1


def test_an_api_that_stays_away_is_told_and_the_job_left_alone(kube, operator, api, tmp_path):
    end = started(run, launch_of(connect(kube.url, patience_s=0.2), tmp_path), lambda: None)
    eventually(lambda: job_in(kube))
    kube.outage()
    assert isinstance(end(), UnavailableError)
    kube.recover()
    assert job_in(kube) is not None


def test_a_refusal_is_told_in_the_server_s_words(kube, api, tmp_path):
    kube.fail(status=403, reason="Forbidden", message="pytorchjobs is forbidden for default-editor")
    with pytest.raises(ConfigError, match="forbidden for default-editor") as told:
        run(launch_of(api, tmp_path), lambda: None)
    assert "citeflow doctor" in told.value.hint


@pytest.mark.fault("F30")
def test_requests_are_few(kube, operator, tmp_path, figure):
    slept = []
    end = started(
        run,
        launch_of(connect(kube.url, sleep=lambda s: (slept.append(s), time.sleep(0.01))), tmp_path),
        lambda: 0,
    )
    first, _ = running(kube, operator)
    eventually(lambda: len(slept) > 20)
    files.write_text(tmp_path / "model", "whole")
    operator.finish(first, 0)
    assert end() is None
    looks = [request for request in kube.requests if request.resource in ("pytorchjobs", "pods")]
    per_minute = len(looks) / (sum(slept) / 60)
    figure(requests_per_minute=per_minute)
    assert per_minute <= 20
