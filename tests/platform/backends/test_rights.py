"""The roles of the platform grant what its backend uses: nothing is missing or spare."""

import dataclasses

import pytest
from places import PLACES, SMALL, submitted

from citeflow.kubernetes.rbac import PLATFORM_OF_CLUSTER, PLATFORM_ROLE

REVIEWS = "authorization.k8s.io"
"""What every account may ask."""

LARGE = dataclasses.replace(SMALL, cores=8, memory=2 * SMALL.memory, disk=2 * SMALL.disk)


def live(name, tmp_path, monkeypatch):
    """Let a user live through everything; return the requests about resources."""
    place = PLACES[name](tmp_path, monkeypatch)
    place.kube.store.kinds["localqueues"] = ("kueue.x-k8s.io/v1beta1", "LocalQueue")
    place.settings = place.settings.model_copy(update={"cluster_queue": "lab"})
    backend = place.backend = place.again()
    for size in (SMALL, LARGE):
        backend.ensure_environment("alice", size)
    for run in (submitted("one"), submitted("two")):
        backend.start(run)
        place.work(run)
        backend.state(run)
        backend.lines(run, 0)
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "spec": {"runPolicy": {}}}
    trainjob = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": {}}
    rayjob = {"apiVersion": "ray.io/v1", "kind": "RayJob", "spec": {}}
    labels = {"app.kubernetes.io/part-of": "citeflow", "app.kubernetes.io/managed-by": "citeflow"}
    if name == "pipelines":
        labels["pipeline/runid"] = place.run_of(run).run_id
    metadata = {"name": "train", "namespace": place.namespace(run), "labels": labels}
    for each in (job, trainjob, rayjob):
        place.kube.put({**each, "metadata": metadata})
    backend.environments.suspend("alice")
    backend.environments.wake("alice")
    backend.cancel(run)
    backend.state(run)
    if name == "pipelines":
        place.kfp.fail("POST", "/runs", "cut")
        with pytest.raises(Exception, match="no answer"):
            backend.start(submitted("three"))
        monkeypatch.setattr("citeflow.platform.backends.cluster_pipelines.UNDER_WAY_S", 0.0)
        backend.start(submitted("three"))
    backend.delete(run)
    backend.environments.remove("alice", force=True)
    place.close()
    return [seen for seen in place.kube.requests if seen.resource and seen.group != REVIEWS]


def grants(rules):
    return {(rule.group, rule.resource, verb) for rule in rules for verb in rule.verbs}


def test_platform_uses_exactly_its_rules(tmp_path, monkeypatch):
    seen = [
        request
        for name in ("jobs", "pipelines")
        for request in live(name, tmp_path / name, monkeypatch)
    ]
    used = {(each.group, each.resource, each.verb) for each in seen}
    of_cluster = grants(PLATFORM_OF_CLUSTER) - {
        ("rbac.authorization.k8s.io", "clusterroles", "bind")  # asked for by the server itself
    }
    assert used == of_cluster | grants(PLATFORM_ROLE)
    inside = [each for each in seen if (each.group, each.resource, each.verb) not in of_cluster]
    assert {each.namespace for each in inside} == {"citeflow-user-alice"}
