"""The rights that the manifests give to launcher and reaper are those that they use: none is missing, none is spare."""

import dataclasses
import threading
import time

import pytest
import yaml
from clusters import NAMESPACE, connect, launch_of, owner, placement
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow.kubernetes import job_objects, logs, reaper, watcher
from citeflow.kubernetes.identity import RUN_ID
from citeflow.kubernetes.job_spec import JobSpec

KINDS = [job_objects.PYTORCH_JOB, job_objects.TRAIN_JOB]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What takes minutes takes a moment."""
    monkeypatch.setattr(watcher, "STRAGGLERS_S", 0.1)
    monkeypatch.setattr(watcher, "SEEN_LATE_S", 0.1)
    monkeypatch.setattr(logs, "AGAIN_S", 0.02)
    monkeypatch.setattr(logs, "LAST_READ_S", 5.0)


@pytest.fixture
def granted(checkout):
    """The rights of a Role, as (group, resource, verb)."""

    def read(name):
        objects = yaml.safe_load_all((checkout / "manifests" / "base" / "rbac.yaml").read_text())
        (role,) = [
            thing
            for thing in objects
            if (thing["kind"], thing["metadata"]["name"]) == ("Role", name)
        ]
        assert not any("resourceNames" in rule for rule in role["rules"])
        return {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    return read


class DeathError(Exception):
    """Stands in for a step that is killed."""


def die(seconds):
    raise DeathError


def wait_for(condition):
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def launched(kube, api, run_dir, kind):
    """A step that creates a job and dies, and its repetition, which takes the job over and ends it with its model."""
    run_dir.mkdir()
    dying = dataclasses.replace(api, sleep=die)
    with pytest.raises(DeathError):
        watcher.run(launch_of(dying, run_dir, kind=kind, owner=owner(kube, "step-1")), lambda: None)
    begun = len(kube.requests)
    again = launch_of(api, run_dir, kind=kind, owner=owner(kube, "step-2"))
    thread = threading.Thread(target=watcher.run, args=(again, lambda: None))
    thread.start()
    wait_for(lambda: any(seen.resource == "pods/log" for seen in kube.requests[begun:]))
    (run_dir / "model").touch()
    thread.join(20)
    assert not thread.is_alive()
    for name in ("step-1", "step-2"):
        kube.remove("pods", NAMESPACE, name)


def compared(granted, used):
    """Hand over how many rights there are, and how many of them are spare or missing; returns those."""
    spare, missing = granted - used, used - granted
    return spare, missing


@pytest.mark.fault("F38")
def test_the_launcher_has_the_rights_that_it_uses(granted, tmp_path):
    with KubeApi() as kube, TrainingOperator(kube, script=lambda pod: ["begins", 60.0]):
        api = connect(kube.url)
        for kind in KINDS:
            launched(kube, api, tmp_path / kind, kind)
        api.client.rest_client.pool_manager.clear()
        used = kube.verbs_used()
    assert {request.namespace for request in kube.requests} == {NAMESPACE}
    assert compared(granted("citeflow-launcher"), used) == (set(), set())


@pytest.mark.fault("F38")
def test_the_reaper_has_the_rights_that_it_uses(kube, api, granted, monkeypatch):
    monkeypatch.setattr(reaper, "GRACE_S", -1.0)
    monkeypatch.setattr(reaper, "YOUNG_S", -1.0)
    metadata = {
        "name": "citation-x",
        "namespace": NAMESPACE,
        "labels": {RUN_ID: placement().run_id},
    }
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata}
    kube.put({**workflow, "status": {"phase": "Running"}})
    for kind in KINDS:
        step = owner(kube, f"step-{kind.lower()}")
        kube.put(job_objects.render(kind, JobSpec(), placement(owner=step)))
        kube.patch("pods", NAMESPACE, step.name, {"status": {"phase": "Failed"}})
    assert len(reaper.reap(api)) == 2
    used = kube.verbs_used()
    assert {request.namespace for request in kube.requests} == {NAMESPACE}
    assert compared(granted("citeflow-reaper"), used) == (set(), set())
