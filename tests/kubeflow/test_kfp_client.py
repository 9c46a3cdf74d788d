import dataclasses
import json
import socket
import time

import pytest
import yaml
from fakes.kfp_server import PAGE, serving

from citeflow.errors import (
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.kubeflow import api, submit
from citeflow.kubeflow import client as kfpserver

TOKEN = "planted-token-3f9a"
PLAN = submit.plan({"workers": 3}, version="v1", run_name="one")


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Short pauses, and nothing of this machine's own set-up."""
    for name, value in {"FIRST_PAUSE_S": 0.01, "LONGEST_PAUSE_S": 0.02, "PATIENCE_S": 0.3}.items():
        monkeypatch.setattr(api, name, value)
    for name, value in {
        "SHORTEST_PAUSE_S": 0.01,
        "LONGEST_PAUSE_S": 0.02,
        "LOOKED_FOR_S": (0.01, 0.01),
    }.items():
        monkeypatch.setattr(kfpserver, name, value)
    for name in ("ENDPOINT", "UI_ENDPOINT", "SA_TOKEN_PATH"):
        monkeypatch.delenv(f"KF_PIPELINES_{name}", raising=False)
    from kfp import client

    monkeypatch.setattr(
        client.Client, "_LOCAL_KFP_CONTEXT", str(tmp_path / "home" / "context.json")
    )


@pytest.fixture
def kfp():
    with serving() as server:
        yield server


def submitted(kfp, planned=PLAN, **options):
    server = kfpserver.connect(host=kfp.url, **options)
    return server, submit.submit(server, planned)


def test_a_first_submission_makes_pipeline_version_experiment_and_run(kfp, capfd):
    _, made = submitted(kfp)
    (version,), (run,), state = kfp.state.versions, kfp.state.runs, kfp.state
    assert state.uploaded == [PLAN.text]
    assert (version.display_name, state.pipelines[0].name, state.experiments[0].display_name) == (
        "v1",
        "citation",
        "citeflow",
    )
    assert (
        run.pipeline_version_reference.pipeline_version_id
        == version.pipeline_version_id
        == made["version_id"]
    )
    assert run.runtime_config.parameters["workers"] == 3
    assert run.service_account is None
    assert made == {
        "run_id": run.run_id,
        "pipeline_id": version.pipeline_id,
        "version_id": version.pipeline_version_id,
        "version": "v1",
        "experiment_id": state.experiments[0].experiment_id,
        "name": "one",
        "url": f"{kfp.url}/#/runs/details/{run.run_id}",
        "state": "PENDING",
    }
    assert capfd.readouterr().out == ""


def test_the_same_submission_again_is_another_run_of_the_same_version(kfp):
    submitted(kfp)
    submitted(kfp)
    state = kfp.state
    counts = [
        len(each) for each in (state.pipelines, state.versions, state.experiments, state.runs)
    ]
    assert counts == [1, 1, 1, 2]


def test_another_content_becomes_a_new_version_of_the_same_pipeline(kfp):
    submitted(kfp)
    submitted(kfp, submit.plan(version="v2", step_image="step:2"))
    assert [each.display_name for each in kfp.state.versions] == ["v1", "v2"]
    assert len(kfp.state.pipelines) == 1
    assert "image: step:2" in kfp.state.uploaded[1]


def test_another_content_of_the_same_version_is_refused_before_a_run_is_started(kfp):
    submitted(kfp)
    with pytest.raises(ConfigError, match="another pipeline of this version: v1\nhint: commit"):
        submitted(kfp, submit.plan(version="v1", step_image="step:2"))
    assert len(kfp.state.runs) == 1


def test_a_recurring_run_has_the_schedule_and_starts_from_the_version(kfp):
    planned = submit.plan(
        version="v1", cron="0 0 3 * * 1", max_concurrency=2, service_account="runner"
    )
    _, made = submitted(kfp, planned)
    (recurring,) = kfp.state.recurring
    assert made["recurring_run_id"] == recurring.recurring_run_id
    assert made["url"] == f"{kfp.url}/#/recurringrun/details/{recurring.recurring_run_id}"
    assert recurring.trigger.cron_schedule.cron == "0 0 3 * * 1"
    assert (recurring.max_concurrency, recurring.no_catchup, recurring.service_account) == (
        "2",
        True,
        "runner",
    )
    assert kfp.state.runs == []


def test_a_run_that_succeeds_is_waited_for_and_its_states_are_told_once(kfp, capfd):
    kfp.state.states = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    server, made = submitted(kfp)
    run = server.wait(made["run_id"], timeout_s=10)
    kfpserver.check_ended_well(run)
    told = [line.split()[2] for line in capfd.readouterr().err.splitlines() if " run " in line]
    assert told == ["pending", "running", "succeeded"]


@pytest.mark.parametrize(
    ("state", "kind", "code"), [("FAILED", TrainingError, 75), ("CANCELED", StoppedError, 143)]
)
def test_a_run_that_does_not_succeed_is_an_error_of_its_own_kind(kfp, state, kind, code):
    kfp.state.states = ["RUNNING", state]
    server, made = submitted(kfp)
    with pytest.raises(kind) as caught:
        kfpserver.check_ended_well(server.wait(made["run_id"], timeout_s=10))
    assert caught.value.exit_code == code
    assert ("at train" in str(caught.value)) == (state == "FAILED")


def test_a_run_that_does_not_end_is_given_up_in_time_and_goes_on(kfp):
    kfp.state.states = ["RUNNING"]
    server, made = submitted(kfp)
    with pytest.raises(UnavailableError, match=r"not ended in time: RUNNING\nhint: it goes on"):
        server.wait(made["run_id"], timeout_s=0.1)
    assert kfp.calls("POST", "/runs")[-1].path.endswith("/runs")


@pytest.mark.parametrize("how", [429, 500, 503, "cut", "lost"])
def test_a_wait_outlives_errors_of_the_server(kfp, how):
    kfp.state.states = ["RUNNING", "RUNNING", "SUCCEEDED"]
    server, made = submitted(kfp)
    fault = kfp.fail("GET", "/runs/", how, times=3)
    assert server.wait(made["run_id"], timeout_s=10).state == "SUCCEEDED"
    assert fault.fired == 3


@pytest.mark.parametrize("how", [429, 500, "cut", "lost"])
@pytest.mark.parametrize(
    "path", ["/pipelines", "/pipelines/upload_version", "/experiments", "/runs"]
)
def test_nothing_is_made_twice_when_an_answer_is_lost(kfp, path, how):
    fault = kfp.fail("POST", path, how)
    if how in (500, "cut"):
        with pytest.raises(UnavailableError, match="no answer from Kubeflow Pipelines"):
            submitted(kfp)
    submitted(kfp)
    assert fault.fired == 1
    state = kfp.state
    assert [
        len(each) for each in (state.pipelines, state.versions, state.experiments, state.runs)
    ] == [1, 1, 1, 1]


def test_a_recurring_run_whose_answer_is_lost_is_found_again(kfp):
    fault = kfp.fail("POST", "/recurringruns", "lost")
    _, made = submitted(kfp, submit.plan(version="v1", cron="0 0 3 * * 1"))
    assert fault.fired == 1
    assert [each.recurring_run_id for each in kfp.state.recurring] == [made["recurring_run_id"]]


@pytest.mark.parametrize("path", ["/healthz", "/pipelines/names", "/experiments"])
@pytest.mark.parametrize("how", [429, 502, "cut"])
def test_reads_are_repeated(kfp, path, how):
    fault = kfp.fail("GET", path, how, times=2)
    submitted(kfp)
    assert fault.fired == 2
    assert len(kfp.state.runs) == 1


def test_a_server_that_is_down_is_told_soon():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            kfpserver.connect(host=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert time.monotonic() - began < 5


def test_a_server_that_accepts_and_says_nothing_is_told_within_the_limit(monkeypatch):
    monkeypatch.setattr(api, "TIMEOUT_S", (0.2, 0.2))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="ReadTimeoutError"):
            kfpserver.connect(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began < 5


def test_a_server_without_a_certificate_is_told_at_once(kfp):
    with pytest.raises(ConfigError, match="https or http"):
        kfpserver.connect(host=kfp.url.replace("http:", "https:"))


@pytest.mark.parametrize("how", ["page", "redirect"])
def test_a_login_page_in_place_of_data_is_told_as_such(kfp, how):
    kfp.fail("GET", "/healthz", how)
    with pytest.raises(ConfigError) as caught:
        kfpserver.connect(host=kfp.url)
    assert "a login page? Give --token-file" in str(caught.value)
    assert "planted-state" not in str(caught.value)
    assert PAGE.decode() not in str(caught.value)
    assert len(kfp.state.seen) == 1


def test_a_token_is_read_from_its_file_for_each_request_and_told_nowhere(tmp_path, capfd):
    file = tmp_path / "token"
    file.write_text("first\n")
    with serving(token="first") as kfp:
        server = kfpserver.connect(host=kfp.url, token_file=file)
        file.write_text(f"{TOKEN}\n")
        kfp.state.token = TOKEN
        made = submit.submit(server, PLAN)
        kfp.state.token = "another"
        with pytest.raises(ConfigError, match="refuses the token") as caught:
            server.wait(made["run_id"], timeout_s=5)
    seen = [(each.path, each.query, each.body) for each in kfp.state.seen]
    everything = [
        str(caught.value),
        json.dumps(made),
        *capfd.readouterr(),
        repr(seen),
        *kfp.state.uploaded,
    ]
    everything.append(repr(dataclasses.replace(server, client=None)))
    assert not any(TOKEN in text for text in everything)
    assert not (tmp_path / "home").exists()


def test_the_token_file_that_a_pod_has_is_found_by_its_variable(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    with serving(token=TOKEN) as kfp:
        submitted(kfp)
        assert len(kfp.state.runs) == 1


def test_a_wrong_token_is_refused_and_asked_for_once(tmp_path):
    (tmp_path / "token").write_text("wrong")
    with serving(token=TOKEN) as kfp:
        with pytest.raises(ConfigError, match="refuses the token"):
            kfpserver.connect(host=kfp.url, token_file=tmp_path / "token")
        assert len(kfp.state.seen) == 1


@pytest.mark.parametrize(
    ("content", "kind"), [(None, NotFoundError), ("", ConfigError), ("two words", ConfigError)]
)
def test_a_token_file_that_is_none_is_told_without_its_content(tmp_path, content, kind):
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(kind) as caught:
        kfpserver.connect(host="http://127.0.0.1:1", token_file=tmp_path / "token")
    assert "two words" not in str(caught.value)


def test_several_users_have_their_runs_in_their_own_namespace():
    with serving(multi_user=True) as shared:
        server, made = submitted(shared, namespace="alice")
        assert {each.query.get("namespace") for each in shared.calls("GET", "/experiments")} == {
            "alice"
        }
        assert (
            shared.state.pipelines[0].namespace == shared.state.experiments[0].namespace == "alice"
        )
        assert made["url"] == f"{shared.url}/_/pipeline/?ns=alice#/runs/details/{made['run_id']}"
        assert server.pods_namespace == "alice"


def test_behind_the_central_dashboard_the_page_is_the_dashboards(monkeypatch):
    with serving(multi_user=True) as shared:
        monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
        server = kfpserver.connect(host=shared.url, namespace="alice")
        assert (
            server.run_page("1") == "https://kubeflow.example/_/pipeline/?ns=alice#/runs/details/1"
        )


def test_without_a_namespace_several_users_are_told_apart_before_anything_is_made(tmp_path):
    with serving(multi_user=True) as shared:
        with pytest.raises(ConfigError, match="--namespace"):
            kfpserver.connect(host=shared.url)
        assert shared.calls("POST") == []
    assert not (tmp_path / "home").exists()


def test_a_namespace_that_is_not_ones_own_is_told():
    with (
        serving(multi_user=True) as shared,
        pytest.raises(ConfigError, match="not allowed by Kubeflow Pipelines"),
    ):
        submitted(shared, namespace="bob")


def test_a_server_alone_is_told_no_namespace_but_has_its_pods_there(kfp):
    server, _ = submitted(kfp, namespace="pipelines")
    assert (server.namespace, server.pods_namespace) == ("", "pipelines")


def test_where_versions_are_kubernetes_objects_their_name_is_one_and_the_title_is_whole():
    with serving(store="kubernetes") as kfp:
        planned = dataclasses.replace(PLAN, version="citeflow-0.1.0+abc")
        submitted(kfp, planned)
        submitted(kfp, planned)
        (version,) = kfp.state.versions
        assert (version.name, version.display_name) == ("citeflow-0.1.0-abc", "citeflow-0.1.0+abc")


def test_a_run_is_found_by_its_id_or_as_the_newest_of_its_name(kfp):
    server, first = submitted(kfp)
    _, second = submitted(kfp)
    assert server.find_run(first["run_id"]).run_id == first["run_id"]
    assert server.find_run("one").run_id == second["run_id"]
    for name in ("two", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFoundError):
            server.find_run(name)


def test_the_stand_in_refuses_what_the_models_do_not_know():
    import kfp_server

    with pytest.raises(kfp_server.UnknownError):
        kfp_server.read({"display_name": "a", "cache": True}, "V2beta1Run")


def test_what_is_uploaded_is_what_kfp_reads_as_pipeline_and_platform(kfp):
    submitted(kfp)
    assert len(list(yaml.safe_load_all(kfp.state.uploaded[0]))) == 2
    assert set(kfp.state.versions[0].pipeline_spec) == {"pipeline_spec", "platform_spec"}
