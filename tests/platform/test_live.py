"""The page of one run: who gets in, and what it shows."""

import json
import shutil

import pytest
from starlette.testclient import TestClient

from citeflow import local_runs
from citeflow.paths import RunPaths
from citeflow.platform.events import Feeds
from citeflow.platform.live.app import Keys, Live, create_app
from citeflow.platform.live.run import LiveRun
from citeflow.platform.live.shown import of_records

URL = "http://127.0.0.1:40123"
API = "/api/v1/runs/first"
LOG = [
    "12:00:00 run starts name=first dataset=synthetic data_root=/d",
    "12:00:01 train[rank 1] starting step=0",
    "12:00:05 train[rank 0] training step=1,200 of=4,000 done=30% loss=0.31 left=1 min 20 s",
]


@pytest.fixture
def run(finished_run, tmp_path):
    """A run of this machine that has ended."""
    paths = RunPaths(tmp_path, "first")
    shutil.copytree(finished_run / "run", paths.folder)
    shutil.copytree(finished_run / "logs", paths.logs)
    paths.output_file.write_text("".join(f"{line}\n" for line in LOG))
    with local_runs.recorded(paths, "synthetic"):
        pass
    return paths


@pytest.fixture
def live(run):
    shown = LiveRun(of_records(run))
    keys = Keys(port=40123, token="the-token", ticket="the-ticket")
    return Live(run=shown, keys=keys, feeds=Feeds(shown, every_s=0.01))


@pytest.fixture
def app(live, tmp_path):
    return create_app(live, URL, static=tmp_path)


def browser(app, **options):
    return TestClient(app, base_url=URL, follow_redirects=False, **options)


@pytest.fixture
def client(app):
    """A browser with the key."""
    with browser(app) as client:
        assert client.get("/?token=the-token").status_code == 303
        yield client


def events(text):
    blocks = [
        dict(line.split(": ", 1) for line in each.splitlines()) for each in text.split("\n\n")
    ]
    return [(each["event"], json.loads(each["data"])) for each in blocks if "data" in each]


def test_token_of_the_address_becomes_a_cookie_out_of_reach(app):
    answer = browser(app).get("/?token=the-token")
    assert (answer.status_code, answer.headers["location"]) == (303, "/live?run=first")
    name, *flags = (part.strip() for part in answer.headers["set-cookie"].split(";"))
    assert name == "citeflow_live_40123=the-token"
    assert {flag.lower() for flag in flags} == {"httponly", "samesite=strict", "path=/api/v1"}


@pytest.mark.parametrize("path", ["", "/events", "/report.html"])
@pytest.mark.parametrize("cookie", [None, "", "the-ticket", "the-tok", "\N{SNOWMAN}"])
def test_nothing_of_a_run_is_told_without_the_key(app, path, cookie):
    headers = {} if cookie is None else {"Cookie": f"citeflow_live_40123={cookie}".encode()}
    answer = browser(app).get(f"{API}{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["hint"] == "open the address that the command has printed"


def test_ticket_of_a_browser_is_good_for_once(app):
    assert browser(app).get("/?token=the-ticket").cookies == {"citeflow_live_40123": "the-token"}
    for token in ("the-ticket", "the-token-", ""):
        answer = browser(app).get(f"/?token={token}")
        assert (answer.status_code, answer.cookies) == (403, {})
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["evil.example:40123", "127.0.0.1", "127.0.0.1:1"])
def test_other_names_of_the_server_are_refused(client, host):
    answer = client.get(API, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["hint"] == "from another machine: ssh -L 40123:127.0.0.1:40123"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", [API, f"{API}/cancel", f"{API}/resume", "/api/v1/runs", "/"])
def test_page_changes_nothing(client, method, path):
    assert client.request(method, path).status_code == 403  # without an Origin
    assert client.request(method, path, headers={"Origin": URL}).status_code == 405


def test_page_has_no_other_run_and_no_accounts(client):
    assert client.get("/api/v1/runs/second").status_code == 404
    assert client.get("/api/v1/runs/second/events").status_code == 404
    assert client.get("/api/v1/me").status_code == 404
    assert client.get("/api/v1/openapi.json").status_code == 404


def test_stream_has_all_of_a_run_that_has_ended(client):
    found = events(client.get(f"{API}/events").text)
    run = found[0][1]
    assert (run["state"], run["workers"], run["has_report"]) == ("succeeded", 1, True)
    assert run["score"]["name"] == "test_mrr"
    assert run["settings"]["synthetic.num_papers"] == 400
    assert not any(run["can"].values())
    lines = [data for kind, data in found if kind == "log"]
    assert [line["line"] for line in lines] == LOG
    assert [line["rank"] for line in lines] == [None, 1, 0]
    metrics = [data for kind, data in found if kind == "metrics"]
    assert len([each for each in metrics if "validation mrr" in each["values"]]) == 6
    assert any(kind == "resources" for kind, _ in found)


def test_report_can_draw_itself_and_no_more(client):
    answer = client.get(f"{API}/report.html")
    assert answer.text == "<!doctype html><title>Report</title>"
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")


def test_state_is_that_of_the_records(run, live):
    def found():
        body = live.run.get(None, "first")
        return body.state, body.detail

    with local_runs.recorded(run, "synthetic"):
        body = live.run.get(None, "first")
        assert (body.state, body.has_report) == ("running", False)
        assert (body.progress.step, body.progress.seconds_left) == (1_200, 80)
    assert found() == ("succeeded", "")
    with pytest.raises(ValueError, match="bad"), local_runs.recorded(run, "synthetic"):
        raise ValueError("bad")
    assert found() == ("failed", "ValueError('bad')")
    with local_runs.recorded(run, "synthetic"):
        shutil.copy(run.status_file, run.folder / "killed.json")
    shutil.copy(run.folder / "killed.json", run.status_file)
    how = "the same command with --run-name first resumes it"
    assert found() == ("stopped", f"its process was killed; {how}")


def test_trial_of_an_experiment_has_an_id_without_a_slash(run, tmp_path):
    trial = RunPaths(tmp_path, "tuning/trial-1")
    shutil.copytree(run.folder, trial.folder)
    trial.status_file.unlink()
    shown = LiveRun(of_records(trial))
    assert shown.id == "tuning.trial-1"
    body = shown.get(None, shown.id)
    assert (body.name, body.state, body.dataset) == ("tuning/trial-1", "succeeded", "")
