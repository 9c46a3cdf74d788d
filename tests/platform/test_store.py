"""The database of the platform, here SQLite and Postgres: what both keep alike."""

import math
import threading
from types import SimpleNamespace

import pytest
from fakes.platform_backend import FakeBackend
from sqlalchemy import create_engine, insert, select

from citeflow.errors import UnavailableError
from citeflow.platform import models
from citeflow.platform import store as tables
from citeflow.platform.accounts import Account
from citeflow.platform.schema import Submission
from citeflow.platform.services import Services
from citeflow.platform.store import Store

URL = "http://127.0.0.1:8080"
USERS = [f"user{number}" for number in range(10)]


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/platform.db"
    server = create_engine(request.getfixturevalue("postgres_url"), isolation_level="AUTOCOMMIT")
    name = f"store{abs(hash(tmp_path))}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    server.dispose()
    return server.url.set(database=name).render_as_string()


@pytest.fixture
def open_services(url, tmp_path):
    """Return a function that opens the database as each of several servers does."""
    opened = []

    def make():
        backend = opened[0].backend if opened else FakeBackend(tmp_path, cores=3)
        opened.append(Services.of(Store(url), backend, URL))
        return opened[-1]

    yield make
    for services in opened:
        services.feeds.close()
        services.trying.close()
        services.store.close()


def at_once(work, arguments):
    """Do something in a thread for each argument, all at the same time."""
    gate, failed = threading.Barrier(len(arguments)), []

    def run(argument):
        gate.wait()
        try:
            work(argument)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_database_is_made_once_by_whoever_comes_first(url):
    at_once(lambda _: Store(url).close(), range(4))
    opened = Store(url)
    with opened.read() as connection:
        versions = connection.execute(select(tables.versions)).all()
    opened.close()
    assert versions == [(len(tables.MIGRATIONS),)]


def test_two_hundred_runs_submitted_at_once_start_in_turns_and_once(open_services):
    """Ten users submit twenty runs each at the same time; two servers look at the queue at once."""
    services, other = open_services(), open_services()
    accounts = {}
    for user in USERS:
        services.accounts.add(user, size="S")
        accounts[user] = Account(name=user, role="user", size="S")

    def submit(user):
        for number in range(20):
            wanted = Submission(dataset="synthetic", name=f"r{number}")
            services.runs.submit(accounts[user], wanted, f"{user} {number}")

    at_once(submit, USERS)
    with services.store.read() as connection:
        rows = connection.execute(select(tables.runs)).all()
    submitted = {row.id: (row.user, int(row.name[1:])) for row in rows}
    assert sorted(row.place for row in rows) == list(range(1, 201))
    backend, ended = services.backend, 0
    while ended < 200:
        at_once(lambda each: each.queue.tick(), [services, other])
        assert len(backend.started) > ended
        for run_id, attempt in backend.started[ended:]:
            backend.end(run_id, attempt=attempt)
        ended = len(backend.started)
    services.queue.tick()
    started = [submitted[run_id] for run_id, _ in backend.started]
    assert len(set(started)) == len(started) == 200
    with services.store.read() as connection:
        by_turn = select(tables.runs).order_by(tables.runs.c.turn)
        turns = [(row.user, int(row.name[1:])) for row in connection.execute(by_turn)]
        phases = set(connection.execute(select(tables.runs.c.state)).scalars())
    assert phases == {"succeeded"}
    for turn in range(20):
        assert sorted(turns[10 * turn : 10 * turn + 10]) == sorted((user, turn) for user in USERS)


def test_change_that_fails_leaves_nothing(open_services):
    services = open_services()
    services.accounts.add("ann")

    def change():
        with services.store.write() as connection:
            values = {"time": 1.0, "user": "ann", "action": "x", "object": "", "outcome": ""}
            connection.execute(insert(tables.audit).values(**values))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert services.accounts.entries(None, 10) == []


def test_text_and_numbers_that_a_database_may_not_like(open_services):
    services = open_services()
    services.accounts.note("a\0b", "x" * 40, "\N{SNOWMAN}\0", "o" * 500)
    (entry,) = services.accounts.entries(None, 10)
    assert (entry.user, entry.object) == ("a\ufffdb", "\N{SNOWMAN}\ufffd")
    assert services.accounts.entries(2**31 - 1, 10) == [entry]
    assert services.accounts.link_owner("a\0b") == ""


def test_model_without_a_score_of_a_protocol_is_registered(open_services, monkeypatch):
    services = open_services()
    account = services.accounts.of_session(
        services.accounts.open(services.accounts.add("ann", size="M"), "", "0123456789")
    )
    scores = {"ogb": 0.5, "cold": math.nan}
    compared = SimpleNamespace(names=("valid_mrr", "test_mrr"), test=math.nan)
    report = SimpleNamespace(
        dataset="x", protocols=scores, mrr=scores.get, compared=lambda: compared
    )
    manifest = SimpleNamespace(sha256="1", inputs={})
    monkeypatch.setattr(models.Report, "read", lambda path: report)
    monkeypatch.setattr(models.files, "read_manifest", lambda path, kind: manifest)
    run = services.runs.submit(account, Submission(dataset="synthetic"), "")
    services.queue.tick()
    services.backend.end(run.id)
    services.queue.tick()
    assert services.runs.get(account, run.id).state == "succeeded"
    (model,) = services.models.list(account, services.seconds)
    assert model.versions[0].scores == {"ogb": 0.5}
    with services.store.read() as connection:
        assert connection.execute(select(tables.runs.c.phase)).scalar() == "ended"


def test_user_is_removed_with_all_that_is_theirs(open_services):
    services = open_services()
    services.accounts.add("root", role="admin")
    token = services.accounts.open(services.accounts.add("ann", size="M"), "", "0123456789")
    account = services.accounts.of_session(token)
    run = services.runs.submit(account, Submission(dataset="synthetic"), "")
    services.queue.tick()
    services.backend.end(run.id)
    services.queue.tick()
    services.accounts.remove("ann")
    with services.store.read() as connection:
        for table in (tables.runs, tables.sessions, tables.links):
            assert connection.execute(select(table).where(table.c.user == "ann")).all() == []


def test_database_that_is_away_is_one_line():
    with pytest.raises(UnavailableError, match="database does not answer"):
        Store("postgresql+psycopg://u@127.0.0.1:1/none")
