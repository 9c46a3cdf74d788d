"""The Roles in the manifests grant what launchers and reaper use: nothing is missing or spare."""

import dataclasses
import threading

import pytest
import yaml
from clusters import NAMESPACE, RUN_ID, close, connect, eventually, identity, owner, watcher_of
from fakes.kube_api import KubeApi
from fakes.operator import TrainingOperator

from citeflow.kubernetes import identity as identity_module
from citeflow.kubernetes import logs, placement, reaper, watcher
from citeflow.kubernetes.job_spec import JobSpec
from citeflow.kubernetes.launchers import LAUNCHERS
from citeflow.kubernetes.rbac import LAUNCHER_ROLE, REAPER_ROLE, launcher_rules


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watcher, "COMPLETION_GRACE_S", 0.1)
    monkeypatch.setattr(placement, "ASK_AFTER_S", 0.0)
    monkeypatch.setattr(placement, "ASK_AGAIN_S", 0.0)
    monkeypatch.setattr(logs, "REOPEN_S", 0.02)
    monkeypatch.setattr(logs, "LAST_READ_S", 5.0)


@pytest.fixture
def roles(checkout):
    """The rules of the Roles in the manifests, by name."""
    objects = yaml.safe_load_all((checkout / "manifests" / "base" / "rbac.yaml").read_text())
    return {
        thing["metadata"]["name"]: thing["rules"] for thing in objects if thing["kind"] == "Role"
    }


@pytest.mark.parametrize(
    ("name", "rules"), [("citeflow-launcher", LAUNCHER_ROLE), ("citeflow-reaper", REAPER_ROLE)]
)
def test_roles_of_the_manifests_are_those_of_the_registry(roles, name, rules):
    assert roles[name] == [
        {"apiGroups": [rule.group], "resources": [rule.resource], "verbs": list(rule.verbs)}
        for rule in rules
    ]


def grants(rules):
    return {(rule.group, rule.resource, verb) for rule in rules for verb in rule.verbs}


class DeathError(Exception):
    """Stands in for a step that is killed."""


@pytest.mark.fault("F38")
def test_launcher_uses_exactly_its_rules(launcher, tmp_path):
    """A step creates a job and dies; its repetition adopts the job and ends it with its model.

    At first no node takes the pods, and one of them goes missing.
    """

    def die(seconds):
        raise DeathError

    with (
        KubeApi() as kube,
        TrainingOperator(kube, script=lambda pod: ["starts", 60.0]) as operator,
    ):
        operator.places = 0
        operator.refusal = "exceeded quota: team"
        client = connect(kube.url)
        options = {"launcher": launcher}
        dying = dataclasses.replace(client, sleep=die)
        first = watcher_of(dying, tmp_path, owner=owner(kube, "step-1"), **options)
        with pytest.raises(DeathError):
            first.train(lambda: None)
        second = watcher_of(client, tmp_path, owner=owner(kube, "step-2"), **options)
        thread = threading.Thread(target=second.train, args=(lambda: None,))
        thread.start()
        eventually(lambda: any(seen.resource == "events" for seen in kube.requests))
        operator.refusal = ""
        eventually(lambda: any(seen.resource == "nodes" for seen in kube.requests))
        operator.places = 9
        eventually(lambda: any(seen.resource == "pods/log" for seen in kube.requests))
        second.run.model.touch()
        thread.join(20)
        assert not thread.is_alive()
        close(client)
        optional = {("", "nodes", "list")}
        assert kube.verbs_used() - optional == grants(launcher_rules([launcher]))
        spaces = {seen.namespace for seen in kube.requests if seen.resource != "nodes"}
        assert spaces == {NAMESPACE}


@pytest.mark.fault("F38")
def test_reaper_uses_exactly_its_rules(kube, client, monkeypatch):
    monkeypatch.setattr(reaper, "GRACE_S", -1.0)
    monkeypatch.setattr(reaper, "YOUNG_S", -1.0)
    labels = {identity_module.RUN_ID: RUN_ID}
    metadata = {"name": "citation-x", "namespace": NAMESPACE, "labels": labels}
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": metadata}
    kube.put({**workflow, "status": {"phase": "Running"}})
    for launcher in LAUNCHERS.values():
        step = owner(kube, f"step-{launcher.name}")
        kube.put(launcher.render(JobSpec(), identity(owner=step)))
        kube.patch("pods", NAMESPACE, step.name, {"status": {"phase": "Failed"}})
    assert len(reaper.reap(client)) == len(LAUNCHERS)
    assert kube.verbs_used() == grants(REAPER_ROLE)
    assert {request.namespace for request in kube.requests} == {NAMESPACE}
