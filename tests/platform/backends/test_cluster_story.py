"""What a user of the platform lives through, on a cluster in memory, over the API of the page."""

from types import SimpleNamespace

import pytest
from places import PLACES
from sqlalchemy import select
from starlette.testclient import TestClient

from citeflow import own_model
from citeflow.files import save_chunks
from citeflow.platform import store as tables
from citeflow.platform.app import create_app
from citeflow.platform.backends.base import paths_of
from citeflow.platform.backends.cluster_pipelines import PipelineRuns
from citeflow.platform.queue import submitted
from citeflow.platform.services import Services
from citeflow.tasks import load_settings

URL = "http://127.0.0.1:8080"
API = "/api/v1"
PASSWORD = "correct horse battery"


@pytest.fixture(params=["jobs", "pipelines"])
def place(request, tmp_path, monkeypatch):
    """A cluster that starts runs as Jobs, and one that starts them as pipeline runs."""
    place = PLACES[request.param](tmp_path / "volumes", monkeypatch)
    yield place
    place.close()


@pytest.fixture
def services(place, tmp_path, open_store):
    services = Services.of(open_store(tmp_path / "own"), place.backend, URL)
    yield services
    services.feeds.close()
    services.trying.close()
    services.store.close()


@pytest.fixture
def ask(services, tmp_path):
    """Return a function with which a new user, alice, asks the platform."""
    accounts = services.accounts
    accounts.open(accounts.first_link(), "root", PASSWORD)
    token = accounts.add("alice")
    client = TestClient(create_app(services, static=tmp_path), base_url=URL)
    client.headers["Origin"] = URL

    def ask(method, path, *, status=200, content=None, **body):
        response = client.request(method, f"{API}{path}", json=body or None, content=content)
        assert response.status_code == status, response.text
        is_json = response.content and "json" in response.headers.get("Content-Type", "")
        return response.json() if is_json else response.text

    ask("POST", "/setup", status=201, token=token, password=PASSWORD)
    return ask


def test_user_takes_an_environment_trains_cancels_resumes_and_leaves(place, services, ask):
    ask("GET", "/environment", status=404)
    assert ask("PUT", "/environment", size="M")["state"] == "ready"
    made = ask("POST", "/runs", status=201, dataset="synthetic", workers=2)
    assert made["state"] == "queued"
    path = f"/runs/{made['id']}"
    services.queue.tick()
    run = run_of(services)
    place.work(run)
    services.queue.tick()
    assert ask("GET", path)["state"] == "running"
    lines = ask("GET", f"{path}/logs")
    assert lines["ranks"] == [0, 1]
    assert [line["line"] for line in lines["lines"] if line["rank"] == 1] == [
        "12:00:00 train[rank 1] step step=1"
    ]
    used = ask("GET", "/environment")["used"]
    if place.num_started(run) and not hasattr(place, "kfp"):
        assert used["cores"] == run.cores
    assert used["disk"] == place.backend.sizes()["M"].disk

    assert ask("POST", f"{path}/cancel")["state"] == "stopping"
    services.queue.tick()
    if hasattr(place, "kfp"):
        place._end(run, "FAILED", 143)
    services.queue.tick()
    assert ask("GET", path)["state"] == "stopped"

    ask("POST", f"{path}/resume")
    services.queue.tick()
    run = run_of(services)
    assert run.attempt == 2
    place.work(run)
    place.succeed(run)
    page = paths_of(place.backend, run).published / "report.html"
    save_chunks(page, [b"<!doctype html><title>Report</title>"])
    services.queue.tick()
    assert ask("GET", path)["state"] == "succeeded"
    assert len(ask("GET", f"{path}/logs")["lines"]) == 6
    assert "<title>Report" in ask("GET", f"{path}/report.html")
    assert ask("GET", "/environment")["used"]["cores"] == 0

    ask("DELETE", path, status=204)
    assert not paths_of(place.backend, run).folder.exists()
    ask("DELETE", "/environment", status=204)
    assert place.kube.get("namespaces", "", place.namespace(run)) is None


CODE = b"def build(settings):\n    return None\n"


def test_code_of_a_user_lies_on_the_volume_of_the_user(place, services, ask):
    assert ask("GET", "/form/citation")["code_problem"] == ""
    ask("PUT", "/environment", size="M")
    made = ask("POST", "/uploads?name=gcn.py&kind=model", status=201, content=CODE)
    settings = {"model.code": f"upload:{made['id']}"}
    ask("POST", "/runs", status=201, dataset="synthetic", settings=settings)
    ask("DELETE", f"/uploads/{made['id']}", status=204)
    services.queue.tick()
    run = run_of(services)
    assert place.num_started(run) == 1
    volume = place.backend.folder("alice")
    read = load_settings(text=(paths_of(place.backend, run).folder / "settings.yaml").read_text())
    assert own_model.names(read) == {"code": made["verdict"]["sha256"]}
    assert own_model.settle(read, volume) == read  # as the first step does
    assert own_model.open_files(read, volume).read_code() == CODE.decode()


def test_cluster_without_training_jobs_has_no_pods_for_the_code_of_a_pipeline(tmp_path):
    client = SimpleNamespace(serves=lambda launcher: False)
    runs = PipelineRuns(SimpleNamespace(client=client), "http://127.0.0.1:1", "image")
    assert runs.code_problem().startswith("the cluster has no PyTorchJob or ")


def run_of(services):
    with services.store.read() as connection:
        return submitted(connection.execute(select(tables.runs)).one())
