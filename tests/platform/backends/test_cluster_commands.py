"""`citeflow user` where the platform is on a cluster."""

import json

import pytest
import yaml
from fakes.controllers import Controllers
from fakes.kube_api import KubeApi

from citeflow.cli.main import main

PLACE = "citeflow-user-alice"


@pytest.fixture
def kube(tmp_path, monkeypatch):
    with KubeApi(without=("Profile", "LocalQueue")) as kube:
        Controllers(kube)
        path = kube.write_kubeconfig(tmp_path / "kubeconfig")
        place = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(place, str(path))
        monkeypatch.setenv("CITEFLOW_PLATFORM_DATA", str(tmp_path / "own"))
        yield kube


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump({"volumes": str(tmp_path / "users")}))
    return path


@pytest.fixture
def user(kube, settings, capsys):
    """Run a command about users; return what it prints."""

    def user(*words, code=0):
        assert main(["user", *words, "--cluster", str(settings)]) == code
        out, err = capsys.readouterr()
        return json.loads(out) if out else err

    return user


def annotations(kube):
    return kube.get("namespaces", "", PLACE)["metadata"]["annotations"]


def test_user_add_makes_the_environment(user, kube):
    made = user("add", "alice", "--size", "M")
    assert made["link"].startswith("http://127.0.0.1:8080/setup?token=")
    quota = kube.get("resourcequotas", PLACE, "citeflow")["spec"]["hard"]
    assert quota["requests.cpu"] == "8"


def test_user_is_suspended_and_let_in_again(user, kube):
    user("add", "alice", "--size", "S")
    assert user("suspend", "alice") == {"name": "alice", "suspended": True}
    assert "citeflow.org/suspended" in annotations(kube)
    assert user("suspend", "alice", "--undo") == {"name": "alice", "suspended": False}
    assert "citeflow.org/suspended" not in annotations(kube)


def test_user_with_work_is_removed_by_force_only(user, kube):
    user("add", "alice", "--size", "S")
    labels = {"app.kubernetes.io/part-of": "citeflow", "pipeline/runid": "1"}
    metadata = {"name": "step", "namespace": PLACE, "labels": labels}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
    spec = {"containers": [{"name": "main"}]}
    kube.put({**pod, "spec": spec, "status": {"phase": "Running"}})
    refusal = user("rm", "alice", code=64)
    assert refusal.endswith(
        "error: runs are at work in the environment: Pod/step\n"
        "hint: cancel them first, or use --force\n"
    )
    assert kube.get("namespaces", "", PLACE)
    assert user("rm", "alice", "--force") == {"name": "alice", "deleted": True}
    assert kube.get("namespaces", "", PLACE) is None
    assert "no such" in user("rm", "alice", code=66)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sizs: {}", "sizs"),
        ("prefix: Users", "must be a begin of names"),
        ("sizes: {S: {cores: 0, memory: 1Gi, disk: 1Gi}}", "cores"),
    ],
)
def test_wrong_settings_are_named_in_a_line(user, settings, text, message):
    settings.write_text(text)
    refusal = user("add", "alice", "--size", "S", code=64)
    assert message in refusal
    assert "Traceback" not in refusal
