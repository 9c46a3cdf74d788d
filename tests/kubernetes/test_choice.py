"""What `launcher: auto` takes, asked of an API server in memory."""

import pytest

from citeflow.kubernetes import client as kube_client
from citeflow.kubernetes.choice import choose_launcher, trains_here


@pytest.fixture
def step(monkeypatch, client):
    monkeypatch.setenv("KFP_POD_NAME", "citation-x7k2q-2104")
    monkeypatch.setattr(kube_client, "connect", lambda **_: client)


def deny(kube, resource, verb):
    def allows(spec):
        asked = spec["resourceAttributes"]
        return (asked["resource"], asked["verb"]) != (resource, verb)

    kube.allows = allows


def test_choose_launcher_takes_the_first_kind_that_the_cluster_has(step, kube, capfd):
    assert choose_launcher("auto") == "pytorchjob"
    del kube.store.kinds["pytorchjobs"]
    assert choose_launcher("auto") == "trainjob"
    assert "auto takes launcher=trainjob" in capfd.readouterr().err
    del kube.store.kinds["trainjobs"]
    assert choose_launcher("auto") == "ray"
    del kube.store.kinds["rayjobs"]
    assert choose_launcher("auto") == "local"
    assert "no pytorchjobs.kubeflow.org; no trainjobs.trainer" in capfd.readouterr().err


def test_choose_launcher_takes_no_kind_without_all_rights(step, kube, capfd):
    deny(kube, "pytorchjobs", "delete")
    assert choose_launcher("auto") == "trainjob"
    deny(kube, "pods", "list")
    assert choose_launcher("auto") == "local"
    assert "no right to list pods" in capfd.readouterr().err


def test_choose_launcher_trains_here_where_a_step_has_no_token(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("KFP_POD_NAME", "citation-x7k2q-2104")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert choose_launcher("auto") == "local"
    assert "auto takes launcher=local why=no connection to a cluster" in capfd.readouterr().err


def test_choose_launcher_asks_nothing_outside_of_a_step(monkeypatch, kube):
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    assert choose_launcher("auto") == "local"
    assert choose_launcher("trainjob") == "trainjob"
    assert kube.requests == []


def test_trains_here_is_true_of_ray_outside_of_a_step_only(monkeypatch):
    monkeypatch.delenv("KFP_POD_NAME", raising=False)
    names = ("local", "ray", "pytorchjob")
    assert [trains_here(name) for name in names] == [True, True, False]
    monkeypatch.setenv("KFP_POD_NAME", "citation-x7k2q-2104")
    assert [trains_here(name) for name in names] == [True, False, False]
