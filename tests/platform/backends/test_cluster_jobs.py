"""Jobs that do a whole run: what they ask of the cluster, and what their ends stand for."""

import dataclasses
import os

import kubernetes_validate
import pytest
import yaml
from places import SMALL, Jobs, submitted

from citeflow.cli.main import run as run_command
from citeflow.errors import CorruptError, UnavailableError
from citeflow.kubernetes.job_spec import quantity
from citeflow.platform.backends import cluster_jobs
from citeflow.training.sandbox import TRUST_VARIABLE


@pytest.fixture
def place(tmp_path, monkeypatch):
    place = Jobs(tmp_path, monkeypatch)
    place.backend.ensure_environment("alice", SMALL)
    yield place
    place.close()


@pytest.fixture
def job(place):
    return yaml.safe_load(place.backend.job(submitted(memory=8 * 2**30)))


@pytest.mark.parametrize("version", ["1.31", "1.34"])
def test_job_fits_the_schema_of_kubernetes(job, version):
    kubernetes_validate.validate(job, version, strict=True)


def test_job_runs_what_the_command_accepts(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "-m", "citeflow", run_command.name]
    told = run_command.make_context(run_command.name, list(container["args"])).params
    assert told["here"].workers == 2
    assert (told["local"].run_name, told["local"].dataset) == ("first", "synthetic")


def test_job_has_room_for_the_estimate_and_no_rights(job):
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert quantity(container["resources"]["requests"]["memory"]) >= 10 * 2**30
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_job_is_made_again_after_a_kill_and_ends_with_an_error_of_the_user(job):
    ignore, fail = job["spec"]["podFailurePolicy"]["rules"]
    assert ignore["action"] == "Ignore"
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["operator"] == "NotIn"
    assert {137, 143} <= set(fail["onExitCodes"]["values"])
    assert not {64, 65, 75} & set(fail["onExitCodes"]["values"])


def test_names_of_attempts_and_runs_differ():
    runs = [submitted("a" * 63), submitted("a" * 63, id="other"), submitted("b", id="third")]
    attempts = [dataclasses.replace(run, attempt=2) for run in runs]
    names = {cluster_jobs.job_name(run) for run in [*runs, *attempts]}
    assert len(names) == 6
    assert max(map(len, names)) <= 57  # and six of a pod


def test_run_without_a_node_says_what_it_waits_for(place):
    run = submitted()
    place.controllers.starts = False
    place.backend.start(run)
    name = f"{place.job(run)['metadata']['name']}-0"
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    waits["message"] = "0/1 nodes are available: 1 Insufficient cpu."
    place.kube.patch("pods", place.namespace(run), name, {"status": {"conditions": [waits]}})
    state = place.backend.state(run)
    assert state.phase == "pending"
    assert "Insufficient cpu" in state.detail


def test_run_in_a_queue_waits_and_is_cancelled_there(place):
    place.kube.store.kinds["localqueues"] = ("kueue.x-k8s.io/v1beta1", "LocalQueue")
    place.settings = place.settings.model_copy(update={"cluster_queue": "lab"})
    backend = place.backend = place.again()
    run = submitted()
    job = yaml.safe_load(backend.job(run))
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "citeflow"
    backend.start(run)
    name = place.job(run)["metadata"]["name"]
    place.kube.patch("jobs", place.namespace(run), name, {"spec": {"suspend": True}})
    state = backend.state(run)
    assert (state.phase, state.detail) == ("pending", "it waits in its queue")
    backend.cancel(run)
    assert backend.state(run).phase == "absent"


def test_run_whose_pod_was_evicted_says_so(place):
    run = submitted()
    place.backend.start(run)
    job = place.job(run)
    name = f"{job['metadata']['name']}-0"
    place.controllers.finish(job, 137)
    status = {"status": {"reason": "Evicted", "message": "The node was low on memory."}}
    place.kube.patch("pods", place.namespace(run), name, status)
    state = place.backend.state(run)
    assert state.phase == "failed"
    assert state.detail == "Evicted: The node was low on memory."


def test_folder_of_a_run_that_leads_elsewhere_is_refused(place, tmp_path):
    run = submitted()
    (tmp_path / "citeflow-user-bob" / "runs").mkdir(parents=True)
    runs = place.backend.folder("alice") / "runs"
    runs.mkdir(parents=True)
    (runs / run.name).symlink_to(tmp_path / "citeflow-user-bob" / "runs")
    with pytest.raises(Exception, match="the folder of the run leads elsewhere: first"):
        place.backend.start(run)


def test_dataset_is_where_the_pods_see_it(place):
    upload = place.backend.folder("alice") / "uploads" / "1" / "papers.zip"
    job = yaml.safe_load(place.backend.job(submitted(dataset=str(upload))))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert "--dataset=/mnt/citeflow/uploads/1/papers.zip" in container["args"]
    with pytest.raises(Exception, match="not on the volume of the user: /etc"):
        place.backend.job(submitted(dataset="/etc/passwd"))


def test_suspended_environment_starts_nothing(place):
    place.backend.environments.suspend("alice")
    assert place.backend.environment("alice").state == "suspended"
    with pytest.raises(Exception, match="the environment is suspended: alice"):
        place.backend.start(submitted())
    place.backend.environments.wake("alice")
    place.backend.start(submitted())
    assert place.backend.state(submitted()).phase == "running"


def test_log_that_is_known_is_shown_while_the_cluster_is_away(place):
    run = submitted()
    place.backend.start(run)
    place.work(run)
    lines = place.backend.lines(run, 0)
    assert len(lines) == 3
    place.kube.outage()
    assert place.backend.lines(run, 0) == lines
    with pytest.raises(UnavailableError):
        place.backend.state(run)
    place.kube.recover()


def test_log_that_may_not_be_read_delays_no_end(place):
    run = submitted()
    place.backend.start(run)
    place.work(run)
    place.succeed(run)
    place.kube.fail(99, status=403, verb="list", resource="pods")
    assert place.backend.state(run).phase == "succeeded"
    assert place.backend.lines(run, 0) == []


def test_pod_of_a_run_with_code_is_what_confines_it(place):
    def variables(settings):
        job = yaml.safe_load(place.backend.job(submitted(settings=settings)))
        pod = job["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        return {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}

    assert place.backend.code_problem() == ""
    code = f"model: {{code: {'a' * 64}}}\n"
    assert variables(code)[TRUST_VARIABLE] == "1"
    for settings in ("train: {minutes: 1}\n", f"model: {{weights: {'a' * 64}}}\n"):
        assert TRUST_VARIABLE not in variables(settings)


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_log_that_a_pod_has_replaced_is_neither_read_nor_written(place, tmp_path, what):
    run = submitted()
    place.backend.start(run)
    place.work(run)
    assert len(place.backend.lines(run, 0)) == 3
    log = place.backend.folder("alice") / "runs" / run.name / "pods.log"
    secret = tmp_path / "secret"
    secret.write_text("kept")
    log.unlink()
    if what == "link":
        log.symlink_to(secret)
    else:
        os.mkfifo(log)
    place.work(run)
    with pytest.raises(CorruptError, match=r"no plain file: pods\.log"):
        place.backend.lines(run, 0)
    assert secret.read_text() == "kept"


def test_logs_that_lead_elsewhere_are_not_deleted(place, tmp_path):
    run = submitted()
    place.backend.start(run)
    theirs = tmp_path / "citeflow-user-bob" / "logs"
    (theirs / run.name).mkdir(parents=True)
    (place.backend.folder("alice") / "logs").symlink_to(theirs)
    with pytest.raises(CorruptError, match="the logs of the run lead elsewhere: first"):
        place.backend.delete(run)
    assert (theirs / run.name).is_dir()
