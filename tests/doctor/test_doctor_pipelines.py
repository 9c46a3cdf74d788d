from types import SimpleNamespace

import pytest

from citeflow.doctor import pipelines
from citeflow.errors import UnavailableError


class Client:
    """A KfpClient whose server is given: its version, and the pipeline's newest version."""

    namespace = "team"

    def __init__(self, tag="2.17.0", pipeline=None, version=None):
        self.tag = tag
        self.pipeline = pipeline
        self.version = version
        self.kfp = SimpleNamespace(healthzs=SimpleNamespace(api_client=self))

    def call(self, method, **options):
        return method(**options)

    def call_api(self, path, method, **options):
        if self.tag is None:
            raise UnavailableError("no answer")
        return {"tag_name": self.tag}

    def find_pipeline(self, name):
        return self.pipeline

    def newest_version(self, pipeline_id):
        return self.version


UPLOADED = SimpleNamespace(pipeline_id="p")


@pytest.mark.parametrize(
    ("client", "statuses"),
    [
        (Client(), ["ok", "ok", "note"]),
        (Client(tag="2.3.0"), ["ok", "warning", "note"]),
        (Client(tag=None), ["ok", "note", "note"]),
        (Client(pipeline=UPLOADED), ["ok", "ok", "warning"]),
        (Client(pipeline=UPLOADED, version=SimpleNamespace(display_name="v1")), ["ok", "ok", "ok"]),
    ],
)
def test_check_version_and_pipeline(client, statuses):
    found = list(pipelines.check(lambda: client))
    assert [finding.status for finding in found] == statuses
    assert found[0].value == "answers; several users, namespace team"


def test_check_without_a_server_is_missing():
    def connect():
        raise UnavailableError("Kubeflow Pipelines does not answer", "host", hint="is it right?")

    (found,) = pipelines.check(connect)
    assert (found.status, found.hint) == ("missing", "is it right?")
    assert found.value == "Kubeflow Pipelines does not answer: host"
