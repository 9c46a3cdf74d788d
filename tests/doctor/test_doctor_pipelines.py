import pytest
from fakes.kfp_server import serving, speed_up

from citeflow.doctor import pipelines
from citeflow.errors import UnavailableError
from citeflow.kubeflow.connection import connect
from citeflow.kubeflow.submit import plan, upload


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    speed_up(monkeypatch, tmp_path / "home")


@pytest.mark.parametrize(
    ("tag", "status"),
    [
        ("2.16.1", "ok"),
        ("2.17.3", "ok"),
        ("2.18.0", "note"),
        ("2.15.2", "warning"),
        ("dev", "note"),
    ],
)
def test_check_names_version_and_pipeline(tag, status):
    with serving(multi_user=True, tag=tag) as server:
        client = connect(host=server.url, namespace="alice")
        found = list(pipelines.check(lambda: client))
        assert [finding.status for finding in found] == ["ok", status, "note"]
        assert found[0].value == "answers; several users, namespace alice"
        upload(client, plan())
        assert pipelines.check_pipeline(client).status == "ok"
        server.state.versions.clear()
        assert pipelines.check_pipeline(client).status == "warning"


def test_check_without_a_server_is_missing():
    def connect():
        raise UnavailableError("Kubeflow Pipelines does not answer", "host", hint="is it right?")

    (found,) = pipelines.check(connect)
    assert (found.status, found.hint) == ("missing", "is it right?")
    assert found.value == "Kubeflow Pipelines does not answer: host"
