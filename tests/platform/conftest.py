"""A platform over a backend without processes, and clients of its users."""

import itertools
import os
import shutil
from dataclasses import dataclass

import postgres
import pytest
from fakes.platform_backend import FakeBackend
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from citeflow.platform.app import create_app
from citeflow.platform.services import COOKIE, Services
from citeflow.platform.store import Store

URL = "http://127.0.0.1:8080"
API = "/api/v1"
PASSWORD = "correct horse battery"
SUBMISSION = {"dataset": "synthetic", "settings": {"train.minutes": 0.5}}


@dataclass(frozen=True, kw_only=True)
class Running:
    """A platform whose queue moves when a test says so."""

    services: Services
    backend: FakeBackend
    app: object
    sessions: dict

    def client(self, user=""):
        """Return a browser in which a user is logged in, or nobody."""
        client = TestClient(self.app, base_url=URL, headers={"Origin": URL})
        if user:
            client.cookies.set(COOKIE, self.sessions[user])
        return client

    def tick(self):
        self.services.queue.tick()

    def submit(self, user, **changes):
        response = self.client(user).post(f"{API}/runs", json={**SUBMISSION, **changes})
        assert response.status_code == 201, response.text
        return response.json()


@pytest.fixture(scope="session")
def postgres_url():
    """The URL of a Postgres of this machine."""
    with postgres.serving() as url:
        yield url


@pytest.fixture(scope="session")
def open_store(request):
    """Return a function that opens the database of a folder, or a copy of another folder's.

    With CITEFLOW_TEST_POSTGRES=1 it is one of a Postgres, else SQLite.
    """
    if not os.environ.get("CITEFLOW_TEST_POSTGRES"):

        def open_sqlite(folder, template=None):
            if template:
                shutil.copytree(template, folder)
            return Store.of_folder(folder)

        yield open_sqlite
        return

    server = create_engine(request.getfixturevalue("postgres_url"), isolation_level="AUTOCOMMIT")
    numbers = itertools.count()
    names = {}

    def open_postgres(folder, template=None):
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in names:
            names[folder] = f"platform{next(numbers)}"
            source = f"TEMPLATE {names[template]}" if template else ""
            with server.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {names[folder]} {source}")
        url = server.url.set(database=names[folder])
        return Store(url.render_as_string(hide_password=False))

    yield open_postgres
    server.dispose()


@pytest.fixture(scope="session")
def accounts_folder(tmp_path_factory, open_store):
    """A database with the users ann and bob and the admin root, who are logged in."""
    folder = tmp_path_factory.mktemp("accounts")
    store = open_store(folder)
    accounts = Services.of(store, FakeBackend(folder), URL).accounts
    sessions = {"root": accounts.open(accounts.first_link(), "root", PASSWORD)}
    for name in ("ann", "bob"):
        sessions[name] = accounts.open(accounts.add(name, size="M"), "", PASSWORD)
    store.close()
    return folder, sessions


@pytest.fixture
def make_platform(accounts_folder, open_store, tmp_path):
    """Return a function that opens a platform with these users."""
    opened = []

    def make(*, static=None, cores=4, oidc=None):
        folder, sessions = accounts_folder
        root = tmp_path / str(len(opened))
        store = open_store(root, folder)
        backend = FakeBackend(root, cores=cores)
        for name in ("ann", "bob"):
            backend.ensure_environment(name, backend.whole)
        services = Services.of(store, backend, URL, oidc)
        app = create_app(services, static=static or tmp_path / "static")
        opened.append(services)
        return Running(services=services, backend=backend, app=app, sessions=sessions)

    yield make
    for services in opened:
        services.feeds.close()
        services.trying.close()
        services.store.close()


@pytest.fixture
def platform(make_platform):
    return make_platform()


@pytest.fixture(scope="session")
def finished_run(trained, tmp_path_factory):
    """The folder of a run with its model, report, index and page, and its logs."""
    from citeflow.serving.citation.index import write_index  # torch, which other tests do without

    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(trained.run.folder, folder / "run")
    shutil.copytree(trained.run.logs, folder / "logs")
    write_index(trained.model, trained.graph, folder / "run" / "index")
    published = folder / "run" / "published"
    published.mkdir()
    (published / "report.html").write_text("<!doctype html><title>Report</title>")
    return folder


@pytest.fixture
def succeed(finished_run):
    """Return a function that gives a run of a platform what a run leaves, and ends it."""

    def finish(platform, run):
        root = platform.backend.folder(run["owner"])
        shutil.copytree(finished_run / "run", root / "runs" / run["name"], dirs_exist_ok=True)
        shutil.copytree(finished_run / "logs", root / "logs" / run["name"])
        platform.tick()
        platform.backend.end(run["id"])
        platform.tick()

    return finish
