"""Runs: submitted once, cancelled, resumed, compared, promoted, deleted."""

import gc
import time
import weakref

import pytest

from citeflow.platform.trying import IDLE_S

API = "/api/v1"
WAIT_S = 60


def get(client, run):
    return client.get(f"{API}/runs/{run['id']}").json()


def test_submission_with_one_key_is_one_run(platform):
    client, body = platform.client("ann"), {"dataset": "synthetic", "name": "first"}
    headers = {"Idempotency-Key": "k1"}
    first, again = (client.post(f"{API}/runs", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    other = {**body, "settings": {"train.minutes": 1}}
    assert client.post(f"{API}/runs", json=other, headers=headers).status_code == 422
    assert len(client.get(f"{API}/runs").json()["runs"]) == 1
    theirs = platform.client("bob").post(f"{API}/runs", json=body, headers=headers)
    assert theirs.json()["id"] != first.json()["id"]


def test_name_is_taken_once_by_each_user(platform):
    platform.submit("ann", name="first")
    again = platform.client("ann").post(
        f"{API}/runs", json={"dataset": "synthetic", "name": "first"}
    )
    assert (again.status_code, again.json()["field"]) == (409, "name")
    platform.submit("bob", name="first")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"settings": {"train.minuts": 1}}, "settings.train.minuts"),
        ({"settings": {"train.minutes": -1}}, "settings.train.minutes"),
        ({"settings": {"minutes": 1}}, "settings.minutes"),
        ({"dataset": "/etc/passwd"}, "dataset"),
        ({"dataset": "file:///etc/passwd"}, "dataset"),
        ({"dataset": "http://127.0.0.1:22/x.zip"}, "dataset"),
        ({"dataset": "http://169.254.169.254/latest"}, "dataset"),
        ({"dataset": "garments"}, "dataset"),
        ({"model": "upload:1"}, "model"),
        ({"name": "Bad Name"}, "name"),
        ({"name": "../up"}, "name"),
        ({"workers": 0}, "workers"),
        ({"task": "poetry"}, "task"),
        ({"owner": "bob"}, "owner"),
    ],
)
def test_wrong_field_is_named(platform, changes, field):
    answer = platform.client("ann").post(f"{API}/runs", json={"dataset": "synthetic", **changes})
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_unknown_upload_is_not_found(platform):
    answer = platform.client("ann").post(f"{API}/runs", json={"dataset": "upload:../../bob"})
    assert answer.status_code == 404


def test_preview_says_what_fits(platform):
    client = platform.client("ann")
    body = {"dataset": "synthetic", "settings": {"train.minutes": 2}}
    preview = client.post(f"{API}/runs/preview", json=body).json()
    assert preview["fits"]
    assert preview["seconds"] == 120
    assert 5e8 < preview["memory"] < 2e9
    assert preview["yaml"] == "name: preview\n"
    large = {**body, "settings": {"synthetic.num_papers": 50_000_000}}
    preview = client.post(f"{API}/runs/preview", json=large).json()
    assert not preview["fits"]
    assert "of memory; the environment has 16.0 GiB" in preview["detail"]
    assert client.post(f"{API}/runs", json=large).status_code == 422
    unknown = client.post(f"{API}/runs/preview", json={"dataset": "garments", "task": "images"})
    assert (unknown.json()["memory"], unknown.json()["fits"]) == (None, True)
    assert client.get(f"{API}/runs").json() == {"runs": []}


def test_job_of_a_preview_is_the_one_of_a_cluster(platform, tmp_path):
    import yaml

    from citeflow.platform.backends.base import Submitted
    from citeflow.platform.backends.local import LocalBackend

    run = Submitted(
        id="1", user="ann", name="first", task="citation", dataset="synthetic", settings="",
        workers=2, cores=2, memory=4 << 30, attempt=1,
    )  # fmt: skip
    job = yaml.safe_load(LocalBackend(tmp_path).job(run))
    assert job["kind"] == "PyTorchJob"
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 2


def test_run_goes_from_the_queue_to_its_end(platform, succeed):
    client = platform.client("ann")
    run = platform.submit("ann")
    assert (run["state"], run["queue_position"]) == ("queued", 1)
    assert run["can"] == {"cancel": True, "resume": False, "delete": False, "promote": False}
    platform.tick()
    assert get(client, run)["state"] == "running"
    succeed(platform, run)
    ended = get(client, run)
    assert (ended["state"], ended["has_report"]) == ("succeeded", True)
    assert ended["can"] == {"cancel": False, "resume": False, "delete": True, "promote": True}
    assert ended["score"]["name"] == "test_mrr"
    assert 0 < ended["score"]["value"] <= 1
    assert len(ended["spark"]) == 6
    page = client.get(f"{API}/runs/{run['id']}/report.html")
    assert page.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    file = client.get(f"{API}/runs/{run['id']}/files/report.html")
    assert file.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "name", ["../run.json", "../../../../platform.db", "%2e%2e/run.json", "", "x" * 5_000, "a%00b"]
)
def test_files_outside_of_what_a_run_published_are_not_found(platform, succeed, name):
    run = platform.submit("ann")
    succeed(platform, run)
    answer = platform.client("ann").get(f"{API}/runs/{run['id']}/files/{name}")
    assert answer.status_code == 404


@pytest.mark.parametrize("linked", ["report.html", "published", "run"])
def test_link_that_leads_out_of_the_folder_of_a_run_is_not_found(platform, succeed, linked):
    run = platform.submit("ann")
    succeed(platform, run)
    url, client = f"{API}/runs/{run['id']}", platform.client("ann")
    folder = platform.backend.folder("ann") / "runs" / run["name"]
    path = {"run": folder, "published": folder / "published"}.get(
        linked, folder / "published" / linked
    )
    elsewhere = platform.backend.folder("bob") / "secret"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert (folder / "published" / "report.html").is_file()
    for name in ("report.html", "files/report.html"):
        assert client.get(f"{url}/{name}").status_code == 404


def test_link_within_what_a_run_published_is_followed(platform, succeed):
    run = platform.submit("ann")
    succeed(platform, run)
    folder = platform.backend.folder("ann") / "runs" / run["name"] / "published"
    (folder / "index.html").symlink_to("report.html")
    (folder / "ring").symlink_to("ring")
    client, url = platform.client("ann"), f"{API}/runs/{run['id']}/files"
    assert "<title>Report" in client.get(f"{url}/index.html").text
    assert client.get(f"{url}/ring").status_code == 404


def test_cancelled_run_resumes_as_another_attempt(platform):
    client = platform.client("ann")
    waiting, working = platform.submit("ann"), platform.submit("ann", workers=2)
    assert client.post(f"{API}/runs/{working['id']}/cancel").json()["state"] == "stopped"
    assert client.post(f"{API}/runs/{working['id']}/resume").json()["state"] == "queued"
    platform.tick()
    cancelled = client.post(f"{API}/runs/{waiting['id']}/cancel").json()
    assert cancelled["state"] == "stopping"
    platform.tick()
    platform.tick()
    assert platform.backend.cancelled == [waiting["id"]]
    stopped = get(client, waiting)
    assert (stopped["state"], stopped["can"]["resume"]) == ("stopped", True)
    assert stopped["detail"] == "you cancelled it. Resume goes on from its checkpoint"
    client.post(f"{API}/runs/{waiting['id']}/resume")
    platform.tick()
    assert platform.backend.started == [(waiting["id"], 1), (working["id"], 2)]
    platform.backend.end(working["id"], attempt=2)
    platform.tick()
    assert platform.backend.started[-1] == (waiting["id"], 2)
    assert client.post(f"{API}/runs/{waiting['id']}/resume").status_code == 409


def test_failed_run_says_why(platform):
    run = platform.submit("ann")
    platform.tick()
    platform.backend.end(run["id"], "failed", detail="not a date: 3.13.2020")
    platform.tick()
    failed = get(platform.client("ann"), run)
    assert (failed["state"], failed["detail"]) == ("failed", "not a date: 3.13.2020")


def test_run_that_was_stopped_by_nobodys_wish_says_what_happened(platform):
    run = platform.submit("ann")
    platform.tick()
    platform.backend.end(run["id"], "stopped", detail="its process was killed")
    assert get(platform.client("ann"), run)["detail"] == "its process was killed"
    platform.tick()
    assert get(platform.client("ann"), run)["detail"] == "its process was killed"


def test_folders_of_the_server_are_not_shown(platform):
    client, run = platform.client("ann"), platform.submit("ann")
    platform.tick()
    root = platform.backend.folder("ann")
    platform.backend.logs[run["id"]] = [
        f"12:00:00 download reads={root}/uploads/1/a.csv",
        f"12:00:01 run data={root} of={root.parent}/others",
    ]
    platform.backend.end(run["id"], "failed", detail=f"no such file: {root}/uploads/1/a.csv")
    platform.tick()
    assert get(client, run)["detail"] == "no such file: uploads/1/a.csv"
    lines = client.get(f"{API}/runs/{run['id']}/logs").json()["lines"]
    assert [each["line"] for each in lines] == [
        "12:00:00 download reads=uploads/1/a.csv",
        f"12:00:01 run data=. of={root.parent}/others",
    ]


def test_run_noted_and_not_started_by_a_server_that_was_killed_starts(platform):
    run = platform.submit("ann")
    assert platform.services.queue._take().id == run["id"]  # and then the server is killed
    platform.tick()
    platform.tick()
    assert platform.backend.started == [(run["id"], 1)]


def test_deleted_run_is_gone(platform):
    client, run = platform.client("ann"), platform.submit("ann")
    assert client.delete(f"{API}/runs/{run['id']}").status_code == 409
    client.post(f"{API}/runs/{run['id']}/cancel")
    assert client.delete(f"{API}/runs/{run['id']}").status_code == 204
    assert client.get(f"{API}/runs/{run['id']}").status_code == 404


def test_list_is_by_state_and_goes_on(platform):
    client = platform.client("ann")
    runs = [platform.submit("ann", workers=2) for _ in range(3)]
    platform.tick()
    listed = client.get(f"{API}/runs").json()["runs"]
    assert [run["id"] for run in listed] == [run["id"] for run in runs[::-1]]
    assert [run["queue_position"] for run in listed] == [2, 1, None]
    queued = client.get(f"{API}/runs?state=queued&limit=1").json()["runs"]
    assert [run["id"] for run in queued] == [runs[2]["id"]]


def test_compare_puts_figures_settings_and_curves_side_by_side(platform, succeed):
    runs = [platform.submit("ann", settings={"train.minutes": n}) for n in (1, 2)]
    succeed(platform, runs[0])
    ids = ",".join(run["id"] for run in runs)
    compared = platform.client("ann").get(f"{API}/runs/compare?ids={ids}").json()
    mrr = next(row for row in compared["rows"] if row["metric"] == "MRR")
    assert 0 < mrr["values"][0] <= 1
    assert (mrr["values"][1], mrr["better"]) == (None, "higher")
    assert compared["settings"] == [{"name": "train.minutes", "values": [1.0, 2.0]}]
    curves = {(each["run"], each["metric"]): each["points"] for each in compared["series"]}
    assert len(curves[runs[0]["id"], "validation mrr"]) == 6


def test_champion_moves_to_a_better_version_only(platform, succeed):
    client = platform.client("ann")
    for name in ("first", "second"):
        succeed(platform, platform.submit("ann", name=name))
    [model] = client.get(f"{API}/models").json()["models"]
    assert [version["run_name"] for version in model["versions"]] == ["second", "first"]
    assert model["versions"][0]["aliases"] == ["candidate"]
    champion = f"{API}/models/synthetic/aliases/champion"
    assert client.put(champion, json={"version": 1}).status_code == 200
    refused = client.put(champion, json={"version": 2})  # it is as good
    score = f"{model['versions'][0]['score']:.4f}"
    assert refused.status_code == 409
    detail = refused.json()["detail"]
    assert detail.startswith("version 2 is no better than the champion, version 1: test MRR")
    assert detail.count(score) == 2
    forced = client.put(champion, json={"version": 2, "force": True}).json()
    assert forced["versions"][0]["aliases"] == ["candidate", "champion"]
    run = forced["versions"][0]["run"]
    assert client.delete(f"{API}/runs/{run}").status_code == 409
    assert client.put(champion, json={"version": 3}).status_code == 404


def test_try_it_answers_with_reasons(platform, succeed, trained):
    client = platform.client("ann")
    succeed(platform, platform.submit("ann"))
    found = client.get(f"{API}/try/synthetic/papers?words=on p300").json()["papers"]
    assert found[0]["id"] == "p300"
    examples = client.get(f"{API}/try/synthetic/papers").json()["papers"]
    years = [each["year"] for each in examples]
    assert len(years) == 5
    assert years == sorted(years, reverse=True)
    body = {"paper": "p300", "top": 3}
    answer = client.post(f"{API}/try/synthetic/citations", json=body).json()
    assert len(answer["answers"]) == 3
    assert all(0 < each["probability"] < 1 for each in answer["answers"])
    assert any(each["reasons"] for each in answer["answers"])
    new = {"references": ["p3", "p4"], "title": "New"}
    assert client.post(f"{API}/try/synthetic/citations", json=new).status_code == 200
    nobody = client.post(f"{API}/try/synthetic/citations", json={"paper": "nobody"})
    assert (nobody.status_code, nobody.json()["title"]) == (404, "Not Found")
    client.put(f"{API}/models/synthetic/deployment", json={"version": 1})
    deployment = client.get(f"{API}/models").json()["models"][0]["deployment"]
    assert deployment["version"] == 1
    assert 0 < deployment["p50"] <= deployment["p99"]


def test_model_that_nobody_asks_is_closed_and_the_next_question_opens_it(platform, succeed):
    client, trying = platform.client("ann"), platform.services.trying
    succeed(platform, platform.submit("ann"))
    body = {"paper": "p300", "top": 3}
    first = client.post(f"{API}/try/synthetic/citations", json=body).json()
    (opened,) = trying._open.values()
    engine = weakref.ref(opened.index.engine)
    trying.close_idle()
    assert trying.num_open == 1
    opened.asked -= IDLE_S
    del opened
    trying.close_idle()
    gc.collect()
    assert (trying.num_open, engine()) == (0, None)  # its memory is given back
    assert client.post(f"{API}/try/synthetic/citations", json=body).json() == first
    assert trying.num_open == 1


def test_models_are_closed_by_the_server_itself(platform, succeed):
    client, trying = platform.client("ann"), platform.services.trying
    succeed(platform, platform.submit("ann"))
    assert client.get(f"{API}/try/synthetic/papers?words=p300").status_code == 200
    trying._idle_s = 0.01
    with client:  # as a server that starts
        deadline = time.monotonic() + WAIT_S
        while trying.num_open:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_environment_is_not_smaller_than_what_is_at_work(platform):
    client = platform.client("ann")
    run = platform.submit("ann", workers=2)
    platform.tick()
    assert client.get(f"{API}/environment").json()["used"]["cores"] == 2
    assert client.put(f"{API}/environment", json={"size": "S"}).status_code == 409
    assert client.delete(f"{API}/environment").status_code == 409
    client.post(f"{API}/runs/{run['id']}/cancel")
    platform.tick()
    platform.tick()
    client.delete(f"{API}/runs/{run['id']}")
    assert client.delete(f"{API}/environment").status_code == 204
    assert client.get(f"{API}/environment").status_code == 404
