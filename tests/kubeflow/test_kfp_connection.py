import json

import pytest
from fakes.kfp_server import serving
from kubernetes.config import incluster_config, kube_config

from citeflow.errors import ConfigError
from citeflow.kubeflow.connection import connect
from citeflow.kubeflow.submit import RunOptions, plan, submit

PLAN = plan({}, options=RunOptions(run_name="one"))
PLUGIN = """#!/bin/sh
printf '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status":'
printf '{"token": "%s", "expirationTimestamp": "2020-01-01T00:00:00Z"}}' "$(cat "$0.token")"
"""


@pytest.fixture
def plugin(tmp_path):
    """A plugin such as that of a cloud, whose tokens have always expired."""
    path = tmp_path / "plugin"
    path.write_text(PLUGIN)
    path.chmod(0o755)
    return path


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Writes the kubeconfig of this user, with the credentials given."""

    def write(url, user):
        path = tmp_path / "kubeconfig"
        content = {
            "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": url}}],
            "users": [{"name": "me", "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }
        path.write_text(json.dumps(content))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))

    return write


def test_connect_goes_through_the_api_server_with_a_token(kubeconfig):
    with serving(kube_token="one") as kfp:
        kubeconfig(kfp.url, {"token": "one"})
        connected = connect()
        assert submit(connected, PLAN).state == "PENDING"
        kfp.state.kube_token = "two"
        with pytest.raises(ConfigError, match=r"refuses the token.*\nhint: .*kubeconfig"):
            connected.list_runs()


def test_connect_goes_through_the_api_server_with_a_plugin(kubeconfig, plugin):
    with serving(kube_token="one") as kfp:
        token = plugin.with_name("plugin.token")
        token.write_text("one")
        exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never"}
        kubeconfig(kfp.url, {"exec": {**exec_, "command": str(plugin)}})
        connected = connect()
        token.write_text("two")
        kfp.state.kube_token = "two"
        assert submit(connected, PLAN).state == "PENDING"


def test_connect_sends_the_token_file_through_the_api_server(kubeconfig, tmp_path):
    (tmp_path / "token").write_text("mine")
    with serving(kube_token="mine") as kfp:
        kubeconfig(kfp.url, {"token": "one"})
        assert submit(connect(token_file=tmp_path / "token"), PLAN).state == "PENDING"


def test_connect_goes_through_the_api_server_without_a_token(kubeconfig):
    """As with a client certificate, which is part of the connection."""
    with serving(kube_token="") as kfp:
        kubeconfig(kfp.url, {})
        assert submit(connect(), PLAN).state == "PENDING"


def test_connect_takes_the_service_in_a_pod(monkeypatch, tmp_path):
    from kfp.client import Client

    for name in ("SERVICE_TOKEN_FILENAME", "SERVICE_CERT_FILENAME"):
        (tmp_path / name).write_text("secret")
        monkeypatch.setattr(incluster_config, name, str(tmp_path / name))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with serving() as kfp:
        monkeypatch.setattr(Client, "_IN_CLUSTER_DNS_NAME", kfp.url.removeprefix("http://"))
        assert submit(connect(), PLAN).state == "PENDING"
