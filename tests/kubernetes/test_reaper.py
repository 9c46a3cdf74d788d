import dataclasses
import datetime

import pytest
from clusters import NAMESPACE, RUN_ID, close, connect, identity, owner
from fakes.kube_api import KubeApi, timestamp
from fakes.operator import TrainingOperator

from citeflow.errors import ConfigError, UnavailableError
from citeflow.kubernetes import identity as identity_module
from citeflow.kubernetes import reaper
from citeflow.kubernetes.identity import Owner
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.reaper import reap

JOBS = [(launcher.plural, "list") for launcher in LAUNCHERS.values()]
CALLS = [*JOBS, ("workflows", "list"), ("pods", "get")]


class Cluster:
    """A pipeline run, its train step, and the job that the step launched."""

    def __init__(self, kube, client, launcher):
        self.kube = kube
        self.client = client
        self.launcher = launcher
        self.now = datetime.datetime.now(datetime.UTC)
        self.later = self.now + datetime.timedelta(seconds=reaper.GRACE_S + 60)
        """When a job that is created in the test is old enough to be deleted."""

    def reap(self, *, after_s=0.0, **options):
        return reap(self.client, now=self.later + datetime.timedelta(seconds=after_s), **options)

    def job(self, *owners, run_name="run", conditions=None, **changes):
        job = self.launcher.render(JobSpec(), identity(run_name=run_name, **changes))
        job["metadata"]["ownerReferences"] = [reference(each) for each in owners]
        given = conditions or {}
        status = [{"type": name, "status": value} for name, value in given.items()]
        states = [name for name, value in given.items() if value == "True"]
        of_ray = {"jobDeploymentStatus": states[-1]} if states else {}
        said = of_ray if self.launcher.name == "ray" else {"conditions": status}
        return self.kube.put({**job, "status": said})["metadata"]["name"]

    def workflow(self, phase, run_id=RUN_ID):
        labels = {identity_module.RUN_ID: run_id}
        metadata = {"name": f"citation-{run_id[:5]}", "namespace": NAMESPACE, "labels": labels}
        kind = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow"}
        self.kube.put({**kind, "metadata": metadata, "status": {"phase": phase}})

    def step(self, name="step-1", *, phase="Running", ended_s_ago=None, sidecar_stays=False):
        """Create the pod of a step, which ended so many seconds before `later`."""
        made = owner(self.kube, name)
        ends = {"running": {}}
        if ended_s_ago is not None:
            at = self.later - datetime.timedelta(seconds=ended_s_ago)
            ends = {"terminated": {"exitCode": 1, "finishedAt": timestamp(at)}}
        states = {"main": ends, "wait": {"running": {}} if sidecar_stays else ends}
        common = {"image": "i", "imageID": "", "ready": False, "restartCount": 0}
        statuses = [{**common, "name": each, "state": state} for each, state in states.items()]
        status = {"phase": phase, "containerStatuses": statuses}
        self.kube.patch("pods", NAMESPACE, name, {"status": status})
        return made

    def left(self):
        return [job["metadata"]["name"] for job in self.kube.list(self.launcher.plural)]


def reference(pod):
    return {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}


@pytest.fixture
def cluster(kube, client, launcher):
    return Cluster(kube, client, launcher)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Error"])
def test_reap_deletes_the_job_of_an_ended_run(cluster, phase, capfd):
    cluster.workflow(phase)
    cluster.workflow("Running", run_id="going")
    step = cluster.step()
    name = cluster.job(step)
    going = cluster.job(step, run_id="going", run_name="two")
    assert cluster.reap(dry_run=True) == [name]
    assert set(cluster.left()) == {name, going}
    assert "would delete" in capfd.readouterr().err
    assert cluster.reap() == [name]
    assert cluster.left() == [going]
    kind = cluster.launcher.kind
    line = f"kind={kind} name={name} reason=its run has ended: {phase}"
    assert line in capfd.readouterr().err


@pytest.mark.parametrize(("run_id", "sidecar_stays"), [(RUN_ID, False), ("another", True)])
def test_reap_waits_for_a_repeated_step(cluster, run_id, sidecar_stays):
    cluster.workflow("Running", run_id=run_id)
    phase = "Running" if sidecar_stays else "Failed"
    ended_s_ago = reaper.GRACE_S - 2
    name = cluster.job(
        cluster.step(phase=phase, ended_s_ago=ended_s_ago, sidecar_stays=sidecar_stays)
    )
    adopted = cluster.job(
        cluster.step("step-2", phase="Failed", ended_s_ago=10_000),
        cluster.step("step-3"),
        run_id="going",
        run_name="adopted",
    )
    assert cluster.reap() == []
    assert cluster.reap(after_s=5) == [name]
    assert cluster.left() == [adopted]


def test_reap_keeps_jobs_without_a_step(cluster, kube):
    cluster.workflow("Failed")
    names = [cluster.job(run_id="by-hand")]
    names.append(cluster.job(cluster.step("notebook-0"), run_id="by-hand-2", run_name="two"))
    foreign = {"apiVersion": "batch/v1", "kind": "Job", "name": "mine", "uid": "u"}
    job = kube.list(cluster.launcher.plural)[0]["metadata"]["name"]
    with kube.changed:
        kube.store.objects[cluster.launcher.plural, NAMESPACE, job]["metadata"][
            "ownerReferences"
        ] = [foreign]
    assert cluster.reap() == []
    assert len(cluster.left()) == len(names)


def test_reap_keeps_young_jobs(cluster):
    cluster.workflow("Failed")
    name = cluster.job(cluster.step(phase="Failed", ended_s_ago=500))
    young = cluster.now + datetime.timedelta(seconds=reaper.YOUNG_S - 20)
    assert reap(cluster.client, now=young) == []
    assert cluster.reap() == [name]


def test_reap_deletes_jobs_past_their_deadline(cluster):
    cluster.workflow("Running")
    name = cluster.job(cluster.step())
    deadline_s = 24 * 3600
    assert cluster.reap(after_s=deadline_s - 300) == []
    assert cluster.reap(after_s=deadline_s) == [name]


@pytest.mark.parametrize(
    ("condition", "ends"),
    [("Succeeded", "pytorchjob"), ("Complete", "trainjob ray"),
     ("Failed", "pytorchjob trainjob ray"), ("Running", ""), ("Restarting", ""), ("Suspended", "")],
)  # fmt: skip
def test_reap_keeps_the_logs_of_ended_jobs(cluster, condition, ends):
    cluster.workflow("Failed")
    name = cluster.job(cluster.step(), conditions={"Created": "True", condition: "True"})
    is_kept = cluster.launcher.name in ends
    assert cluster.reap() == ([] if is_kept else [name])


def test_reap_leaves_other_owners_and_namespaces_alone(cluster, kube):
    cluster.workflow("Failed")
    name = cluster.job(cluster.step())
    labels = {"labels": {"app.kubernetes.io/managed-by": "somebody"}}
    kube.patch(cluster.launcher.plural, NAMESPACE, name, {"metadata": labels})
    metadata = {"name": "step-1", "namespace": "another"}
    pod = kube.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
    elsewhere = identity(
        namespace="another", owner=Owner(name="step-1", uid=pod["metadata"]["uid"])
    )
    kube.put(cluster.launcher.render(JobSpec(), elsewhere))
    assert cluster.reap() == []
    assert len(cluster.left()) == 2


@pytest.mark.parametrize("happens", ["adopted", "replaced"])
def test_reap_keeps_a_job_that_changes_at_the_last_moment(cluster, kube, happens):
    cluster.workflow("Running")
    name = cluster.job(cluster.step(phase="Failed", ended_s_ago=205))
    second = cluster.step("step-2")
    done = []

    def change(number, request, phase):
        if request.verb == "delete" and phase == "before" and not done:
            done.append(happens)
            if happens == "replaced":
                kube.remove(cluster.launcher.plural, NAMESPACE, name)
                cluster.job(second)
            else:
                job = kube.get(cluster.launcher.plural, NAMESPACE, name)
                owners = [*job["metadata"]["ownerReferences"], reference(second)]
                patch = {"metadata": {"ownerReferences": owners}}
                kube.patch(cluster.launcher.plural, NAMESPACE, name, patch)

    kube.on_request(change)
    assert cluster.reap() == []
    assert done
    assert cluster.left() == [name]
    assert cluster.reap() == []


def test_reap_serves_clusters_with_some_kinds_only():
    for without in ([], ["PyTorchJob"], ["TrainJob"], ["PyTorchJob", "TrainJob"]):
        with KubeApi(without=without) as kube:
            client = connect(kube.url)
            launchers = [each for each in LAUNCHERS.values() if each.kind not in without]
            names = []
            for launcher in launchers:
                cluster = Cluster(kube, client, launcher)
                cluster.workflow("Failed")
                names.append(cluster.job(cluster.step(), run_name=launcher.name))
            later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            assert reap(client, now=later) == names
            close(client)


@pytest.mark.parametrize(("resource", "verb"), CALLS)
def test_reap_outlasts_errors_and_stops_at_refusals(cluster, kube, resource, verb):
    cluster.workflow("Running")
    name = cluster.job(cluster.step(phase="Failed", ended_s_ago=500))
    refusal = f"{resource} is forbidden"
    fault = kube.fail(resource=resource, verb=verb, status=403, message=refusal)
    with pytest.raises(ConfigError, match=refusal):
        cluster.reap()
    assert fault.fired == 1
    assert cluster.left() == [name]
    fault = kube.fail(2, resource=resource, verb=verb, status=503)
    kube.drop(1, verb="delete", handled=True)
    assert cluster.reap() == [name]
    assert fault.fired == 2
    assert cluster.left() == []


def test_reap_without_an_answer_deletes_nothing(kube, client, launcher):
    cluster = Cluster(kube, dataclasses.replace(client, patience_s=0.1), launcher)
    cluster.workflow("Failed")
    name = cluster.job(cluster.step())
    kube.outage()
    with pytest.raises(UnavailableError):
        cluster.reap()
    assert cluster.left() == [name]


# Orphans, by the reaper's clock


def run_terminated(cluster):
    """KFP's Terminate: Argo ends the run and stops its pods, which it keeps."""
    cluster.workflow("Failed")
    cluster.step(phase="Failed", ended_s_ago=0)


def run_deleted(cluster):
    """KFP's Delete: the run goes, and what it owns with it."""
    cluster.kube.remove("workflows", NAMESPACE, f"citation-{RUN_ID[:5]}")
    cluster.kube.remove("pods", NAMESPACE, "step-1")


def launcher_killed(cluster):
    """The launcher died, and Argo has not taken note of it."""
    cluster.step(ended_s_ago=0, sidecar_stays=True)


def node_lost(cluster):
    """The pod of the step is gone while the run waits for an attempt that never comes."""
    cluster.kube.remove("pods", NAMESPACE, "step-1")


@pytest.mark.fault("F28")
@pytest.mark.parametrize("age_s", [0, 3600])
@pytest.mark.parametrize("end", [run_terminated, run_deleted, launcher_killed, node_lost])
def test_orphans_are_gone_within_five_minutes(cluster, kube, end, age_s):
    operator = TrainingOperator(kube)
    cluster.workflow("Running")
    cluster.job(cluster.step())
    operator.settle()

    def left():
        workers = [pod for pod in kube.list("pods") if "step" not in pod["metadata"]["name"]]
        return [*cluster.left(), *workers, *kube.list("services")]

    assert len(left()) >= 3
    created = cluster.now + datetime.timedelta(seconds=age_s)
    cluster.later = created
    assert cluster.reap() == []
    end(cluster)
    operator.settle()
    for orphan_s in range(1, 300, 60):  # the first pass comes a second after the death
        cluster.reap(after_s=orphan_s)
        operator.settle()
    assert left() == []
