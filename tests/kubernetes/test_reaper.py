"""Which jobs are deleted because nobody waits for them any more, and which are not."""

import datetime
import json
import os
import subprocess
import sys

import pytest
from clusters import NAMESPACE, connect, owner, placement
from fakes.kube_api import KubeApi

from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubernetes import job_objects, reaper
from citeflow.kubernetes.identity import RUN_ID, Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.reaper import reap

RUN = placement().run_id
LOOKS = [("pytorchjobs", "list"), ("trainjobs", "list"), ("workflows", "list"), ("pods", "get")]


@pytest.fixture(params=[job_objects.PYTORCH_JOB, job_objects.TRAIN_JOB])
def kind(request):
    """A kind of job."""
    return request.param


class World:
    """A pipeline run, its train step, and the job that the step created."""

    def __init__(self, kube, api, kind):
        self.kube, self.api, self.kind = kube, api, kind
        self.plural = f"{kind.lower()}s"
        self.now = datetime.datetime.now(datetime.UTC)
        self.later = self.now + datetime.timedelta(seconds=reaper.GRACE_S + 60)
        """When a job that is created in the test is old enough to be deleted."""

    def job(self, *, owners=(), run_name="run", conditions=None, **given):
        job = job_objects.render(self.kind, JobSpec(), placement(run_name=run_name, **given))
        references = [job_objects.owner_reference(each) for each in owners]
        job["metadata"]["ownerReferences"] = references
        if conditions is not None:
            job["status"] = {
                "conditions": [
                    {"type": name, "status": value} for name, value in conditions.items()
                ]
            }
        return self.kube.put(job)["metadata"]["name"]

    def workflow(self, phase, run_id=RUN):
        name = f"citation-{run_id[:5].lower()}"
        metadata = {"name": name, "namespace": NAMESPACE, "labels": {RUN_ID: run_id}}
        status = {"status": {"phase": phase}} if phase else {}
        self.kube.put(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Workflow",
                "metadata": metadata,
                **status,
            }
        )

    def step(self, name="step-1", *, phase="Running", ended_s_ago=None, containers=True):
        """The pod of a step, which ended so many seconds before `later`."""
        made = owner(self.kube, name)
        state = {"running": {}}
        if ended_s_ago is not None:
            at = (self.later - datetime.timedelta(seconds=ended_s_ago)).strftime(
                "%Y-%m-%dT%H:%M:%SZ"
            )
            state = {"terminated": {"exitCode": 1, "finishedAt": at}}
        status = {
            "name": "main",
            "image": "i",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        patch = {
            "metadata": {"labels": {"app.kubernetes.io/part-of": "citeflow"}},
            "status": {"phase": phase},
        }
        if containers:
            patch["status"]["containerStatuses"] = [status]
        self.kube.patch("pods", NAMESPACE, name, patch)
        return made

    def left(self):
        return [job["metadata"]["name"] for job in self.kube.list(self.plural)]


@pytest.fixture
def world(kube, api, kind):
    """A cluster with Argo and both kinds of job."""
    return World(kube, api, kind)


def test_nothing_is_asked_about_runs_where_there_is_no_job(kube, api):
    assert reap(api) == []
    assert {request.resource for request in kube.requests} == {"pytorchjobs", "trainjobs"}


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_the_job_of_a_run_that_has_ended_is_deleted_even_if_its_step_seems_to_run(
    world, phase, capfd
):
    world.workflow(phase)
    name = world.job(owners=[world.step()])
    assert reap(world.api, now=world.later) == [name]
    assert world.left() == []
    told = capfd.readouterr().err
    assert f"kind={world.kind} name={name} reason=its run has ended: {phase}" in told


@pytest.mark.parametrize("phase", ["Running", "Pending", ""])
@pytest.mark.parametrize("step", ["Running", "Pending"])
def test_the_job_of_a_step_that_runs_is_kept(world, phase, step):
    world.workflow(phase)
    name = world.job(owners=[world.step(phase=step)])
    assert reap(world.api, now=world.later) == []
    assert reap(world.api, now=world.later + datetime.timedelta(days=300)) == []
    assert world.left() == [name]


def test_the_job_of_a_run_that_is_gone_is_deleted(world):
    world.workflow("Running", run_id="another")
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=200)])
    assert reap(world.api, now=world.later) == [name]


def test_the_job_of_a_step_that_ended_long_ago_is_deleted(world):
    world.workflow("Running")
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=reaper.GRACE_S + 2)])
    assert reap(world.api, now=world.later) == [name]
    assert world.left() == []


def test_the_job_of_a_step_that_ended_just_now_is_kept_for_the_step_that_repeats_it(world):
    world.workflow("Running")
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=reaper.GRACE_S - 2)])
    assert reap(world.api, now=world.later) == []
    assert reap(world.api, now=world.later + datetime.timedelta(seconds=5)) == [name]


def test_the_job_of_a_pod_that_is_gone_is_deleted(world, kube):
    world.workflow("Running")
    first, second = world.step("step-1"), world.step("step-2", phase="Failed", ended_s_ago=500)
    name = world.job(owners=[first, second])
    kube.remove("pods", NAMESPACE, "step-1")
    assert reap(world.api, now=world.later) == [name]


def test_the_job_of_a_pod_that_failed_before_a_container_ran_is_deleted(world):
    world.workflow("Running")
    name = world.job(owners=[world.step(phase="Failed", containers=False)])
    assert reap(world.api, now=world.later) == [name]


@pytest.mark.parametrize("seconds", [0, 30, 10_000])
def test_a_job_that_a_repeated_step_took_over_is_kept(world, seconds):
    world.workflow("Running")
    name = world.job(
        owners=[world.step("step-1", phase="Failed", ended_s_ago=seconds), world.step("step-2")]
    )
    assert reap(world.api, now=world.later) == []
    assert world.left() == [name]


def test_a_job_that_was_sent_by_hand_is_left_alone(world):
    name = world.job(run_id="by-hand")
    assert reap(world.api, now=world.later + datetime.timedelta(days=300)) == []
    assert world.left() == [name]


@pytest.mark.parametrize("phase", ["Failed", "gone"])
def test_a_young_job_is_kept_whatever_became_of_its_run(world, phase):
    if phase != "gone":
        world.workflow(phase)
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=500)])
    assert reap(world.api, now=world.now + datetime.timedelta(seconds=reaper.YOUNG_S - 20)) == []
    assert world.left() == [name]
    assert reap(world.api, now=world.later) == [name]


@pytest.mark.parametrize("condition", ["Succeeded", "Complete", "Failed"])
def test_a_job_that_has_ended_keeps_its_logs(world, condition):
    world.workflow("Failed")
    name = world.job(owners=[world.step()], conditions={"Running": "False", condition: "True"})
    assert reap(world.api, now=world.later) == []
    assert world.left() == [name]


@pytest.mark.parametrize("condition", ["Created", "Running", "Restarting", "Suspended"])
def test_a_job_that_has_not_ended_does_not_stay(world, condition):
    world.workflow("Failed")
    name = world.job(owners=[world.step()], conditions={condition: "True", "Failed": "False"})
    assert reap(world.api, now=world.later) == [name]


def test_each_job_is_judged_by_its_own_run(world):
    world.workflow("Failed", run_id="ended")
    world.workflow("Running", run_id="going")
    step = world.step()
    ended = world.job(owners=[step], run_id="ended", run_name="one")
    going = world.job(owners=[step], run_id="going", run_name="two")
    assert reap(world.api, now=world.later) == [ended]
    assert world.left() == [going]


def test_the_jobs_of_others_are_not_touched(world, kube):
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    kube.patch(
        world.plural,
        NAMESPACE,
        name,
        {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}},
    )
    assert reap(world.api, now=world.later) == []
    assert world.left() == [name]


def test_other_namespaces_are_not_touched(world, kube):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "step-1", "namespace": "another"},
        "spec": {},
    }
    uid = kube.put(pod)["metadata"]["uid"]
    kube.put(
        job_objects.render(
            world.kind,
            JobSpec(),
            placement(namespace="another", owner=Owner(name="step-1", uid=uid)),
        )
    )
    world.workflow("Failed")
    assert reap(world.api, now=world.later) == []
    assert len(world.left()) == 1


def test_the_job_of_another_kind_s_owner_is_left_to_that(world, kube):
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    references = [{"apiVersion": "batch/v1", "kind": "Job", "name": "mine", "uid": "u"}]
    with kube.changed:
        for job in kube.store.objects.values():
            if job["metadata"]["name"] == name:
                job["metadata"]["ownerReferences"] = references
    assert reap(world.api, now=world.later) == []


def test_a_job_that_a_step_takes_over_in_the_last_moment_is_kept(world, kube):
    world.workflow("Running")
    name = world.job(owners=[world.step("step-1", phase="Failed", ended_s_ago=200)])
    second = world.step("step-2")

    def take_over(number, request, phase):
        if request.verb == "delete" and phase == "before":
            there = kube.get(world.plural, NAMESPACE, name)["metadata"]["ownerReferences"]
            references = [*there, job_objects.owner_reference(second)]
            kube.patch(world.plural, NAMESPACE, name, {"metadata": {"ownerReferences": references}})

    kube.on_request(take_over)
    reap(world.api, now=world.later)
    assert "delete" in {request.verb for request in kube.requests}
    assert world.left() == [name]
    assert reap(world.api, now=world.later) == []


def test_a_new_job_of_the_same_name_is_kept(world, kube):
    world.workflow("Running")
    name = world.job(owners=[world.step("step-1", phase="Failed", ended_s_ago=200)])
    made = []

    def make_anew(number, request, phase):
        if request.verb == "delete" and phase == "before" and not made:
            made.append(1)
            kube.remove(world.plural, NAMESPACE, name)
            world.job(owners=[world.step("step-2")])

    kube.on_request(make_anew)
    reap(world.api, now=world.later)
    assert made
    assert world.left() == [name]


def test_the_job_of_a_step_is_kept_whatever_labels_the_step_has(world, kube):
    world.workflow("Running")
    step = world.step()
    kube.patch(
        "pods", NAMESPACE, step.name, {"metadata": {"labels": {"app.kubernetes.io/part-of": None}}}
    )
    name = world.job(owners=[step])
    assert reap(world.api, now=world.later) == []
    assert world.left() == [name]


def test_the_job_of_a_pod_that_runs_is_kept_even_if_its_run_is_unknown(world):
    name = world.job(owners=[world.step("notebook-0")], run_id="by-hand")
    assert reap(world.api, now=world.later) == []
    assert world.left() == [name]


def test_a_dry_run_says_what_it_would_delete(world, capfd):
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    assert reap(world.api, now=world.later, dry_run=True) == [name]
    assert world.left() == [name]
    assert "would delete" in capfd.readouterr().err
    assert "delete" not in {request.verb for request in world.kube.requests}


def test_the_pods_of_a_deleted_job_go_after_it(world):
    world.workflow("Failed")
    world.job(owners=[world.step()])
    reap(world.api, now=world.later)
    (request,) = [request for request in world.kube.requests if request.verb == "delete"]
    assert request.body["propagationPolicy"] == "Background"


@pytest.mark.parametrize("without", ["PyTorchJob", "TrainJob"])
def test_a_cluster_that_has_only_one_kind_of_job_is_served(without, tmp_path):
    (kind,) = {job_objects.PYTORCH_JOB, job_objects.TRAIN_JOB} - {without}
    with KubeApi(without=[without]) as kube:
        api = connect(kube.url)
        world = World(kube, api, kind)
        world.workflow("Failed")
        name = world.job(owners=[world.step()])
        assert reap(api, now=world.later) == [name]
        api.client.rest_client.pool_manager.clear()


def test_a_cluster_that_has_no_kind_of_job_has_nothing_to_delete():
    with KubeApi(without=["PyTorchJob", "TrainJob"]) as kube:
        api = connect(kube.url)
        assert reap(api) == []
        api.client.rest_client.pool_manager.clear()


@pytest.mark.parametrize(("resource", "verb"), LOOKS)
@pytest.mark.parametrize("status", [429, 500, 503])
def test_errors_that_pass_are_waited_for(world, kube, resource, verb, status):
    fault = kube.fail(2, resource=resource, verb=verb, status=status)
    world.workflow("Running")
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=500)])
    assert reap(world.api, now=world.later) == [name]
    assert fault.fired == 2


def test_a_deletion_without_an_answer_is_asked_for_again(world, kube):
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    fault = kube.drop(1, verb="delete", handled=True)
    assert reap(world.api, now=world.later) == [name]
    assert fault.fired == 1
    assert world.left() == []


@pytest.mark.parametrize(("resource", "verb"), LOOKS)
def test_what_can_not_be_known_deletes_nothing(world, kube, resource, verb):
    kube.fail(resource=resource, verb=verb, status=403, message=f"{resource} is forbidden")
    world.workflow("Running")
    name = world.job(owners=[world.step(phase="Failed", ended_s_ago=500)])
    with pytest.raises(ConfigError, match=f"{resource} is forbidden"):
        reap(world.api, now=world.later)
    assert world.left() == [name]


def test_an_api_that_does_not_answer_deletes_nothing(kube, kind):
    api = connect(kube.url, patience_s=0.1)
    world = World(kube, api, kind)
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    kube.outage()
    with pytest.raises(UnavailableError):
        reap(api, now=world.later)
    kube.recover()
    assert world.left() == [name]
    api.client.rest_client.pool_manager.clear()


# The command


def age(kube, seconds):
    """Let every job be so old."""
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=seconds)
    with kube.changed:
        for job in kube.store.objects.values():
            job["metadata"]["creationTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")


def citeflow(*argv, **environment):
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KUBE", "CITEFLOW", "KFP"))
    }
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    command = [sys.executable, "-m", "citeflow", *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_the_command_deletes_in_the_namespace_of_the_kubeconfig(world, kube, tmp_path):
    config = kube.write_kubeconfig(tmp_path / "config", NAMESPACE)
    world.workflow("Failed")
    name = world.job(owners=[world.step()])
    age(kube, 3600)
    done = citeflow("reap", "--dry-run", KUBECONFIG=str(config))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"deleted": [name]})
    assert world.left() == [name]
    done = citeflow("reap", KUBECONFIG=str(config))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"deleted": [name]})
    assert world.left() == []


def test_the_command_looks_into_the_namespace_that_it_is_told(kube, tmp_path):
    config = kube.write_kubeconfig(tmp_path / "config", "default")
    done = citeflow("reap", "--namespace", "kubeflow", KUBECONFIG=str(config))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"deleted": []})
    assert {request.namespace for request in kube.requests} == {"kubeflow"}


def test_the_command_tells_a_refusal(kube, tmp_path):
    kube.fail(
        resource="pytorchjobs", status=403, message="pytorchjobs is forbidden for citeflow-reaper"
    )
    done = citeflow("reap", KUBECONFIG=str(kube.write_kubeconfig(tmp_path / "config")))
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(
        "error: the cluster refuses: pytorchjobs is forbidden for citeflow-reaper"
    )


def test_the_command_tells_that_there_is_no_cluster(tmp_path):
    done = citeflow("reap", KUBECONFIG=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("error: no cluster to talk to")
    assert "KUBECONFIG" in done.stderr
