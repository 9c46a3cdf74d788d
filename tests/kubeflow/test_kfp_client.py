import dataclasses
import socket
import time

import pytest
import yaml
from fakes import kfp_server
from fakes.kfp_server import PAGE, serving
from fakes.recorded import recorded

from citeflow.errors import (
    ConfigError,
    NotFoundError,
    StoppedError,
    TrainingError,
    UnavailableError,
)
from citeflow.kubeflow import calls
from citeflow.kubeflow.connection import connect
from citeflow.kubeflow.outcome import failed_stages, run_error
from citeflow.kubeflow.submit import Package, RunOptions, plan, submit

TOKEN = "planted-token-3f9a"
PLAN = plan({"workers": 3}, Package(version="v1"), RunOptions(run_name="one"))
OTHER = plan({}, Package(version="v2", step_image="step:2"))
WEEKLY = plan({}, Package(version="v1"), RunOptions(cron="0 0 3 * * 1", service_account="runner"))


def submitted(kfp, planned=PLAN, **options):
    connected = connect(host=kfp.url, **options)
    return connected, submit(connected, planned)


def counts(state):
    created = (state.pipelines, state.versions, state.experiments, state.runs)
    return [len(objects) for objects in created]


def test_submit_creates_all_that_a_run_needs(kfp, capfd):
    _, made = submitted(kfp)
    state = kfp.state
    (pipeline,), (version,), (experiment,), (run,) = (
        state.pipelines, state.versions, state.experiments, state.runs
    )  # fmt: skip
    assert state.uploaded == [PLAN.text]
    assert len(list(yaml.safe_load_all(PLAN.text))) == 2
    names = (pipeline.name, version.display_name, experiment.display_name)
    assert names == ("citation", "v1", "citeflow")
    assert pipeline.description.startswith("Train and score a GraphSAGE link predictor")
    assert "\n- **dataset**: " in pipeline.description
    assert "Runs of citeflow" in experiment.description
    assert run.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert run.runtime_config.parameters["workers"] == 3
    assert run.runtime_config.parameters["run_name"] == run.display_name == "one"
    assert run.service_account is None
    assert made.describe() == {
        "run_id": run.run_id,
        "pipeline_id": version.pipeline_id,
        "version_id": version.pipeline_version_id,
        "version": "v1",
        "experiment_id": experiment.experiment_id,
        "name": "one",
        "url": f"{kfp.url}/#/runs/details/{run.run_id}",
        "state": "PENDING",
    }
    assert capfd.readouterr().out == ""


def test_submit_uploads_each_content_once(kfp):
    submitted(kfp)
    submitted(kfp)
    assert counts(kfp.state) == [1, 1, 1, 2]
    with pytest.raises(ConfigError, match="another pipeline of this version: v1\nhint: commit"):
        submitted(kfp, dataclasses.replace(OTHER, version="v1"))
    submitted(kfp, OTHER)
    assert counts(kfp.state) == [1, 2, 1, 3]
    assert "image: step:2" in kfp.state.uploaded[1]


def test_version_is_found_on_a_later_page(kfp):
    submitted(kfp)
    (version,) = kfp.state.versions
    for number in range(120):
        newer = kfp_server.models.V2beta1PipelineVersion(
            pipeline_id=version.pipeline_id, name=f"newer-{number}"
        )
        kfp.state.versions.append(newer)
    submitted(kfp)
    assert len(kfp.state.uploaded) == 1


@pytest.mark.parametrize("is_answered", [True, False])
def test_submit_creates_one_recurring_run(kfp, is_answered):
    fault = kfp.fail("POST", "/recurringruns", "lost", times=0 if is_answered else 1)
    _, made = submitted(kfp, WEEKLY)
    (recurring,) = kfp.state.recurring
    assert fault.fired == fault.times
    assert made.describe()["recurring_run_id"] == recurring.recurring_run_id
    assert made.url == f"{kfp.url}/#/recurringrun/details/{recurring.recurring_run_id}"
    assert recurring.trigger.cron_schedule.cron == "0 0 3 * * 1"
    limits = (recurring.max_concurrency, recurring.no_catchup, recurring.service_account)
    assert limits == ("1", True, "runner")
    assert kfp.state.runs == []


@pytest.mark.parametrize("how", [429, 500, "cut", "lost"])
@pytest.mark.parametrize(
    "path", ["/pipelines", "/pipelines/upload_version", "/experiments", "/runs"]
)
def test_nothing_is_created_twice_when_an_answer_is_lost(kfp, path, how):
    fault = kfp.fail("POST", path, how)
    if how in (500, "cut"):
        with pytest.raises(UnavailableError, match="no answer from Kubeflow Pipelines"):
            submitted(kfp)
    submitted(kfp)
    assert fault.fired == 1
    assert counts(kfp.state) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("path", "how"), [("/healthz", 429), ("/pipelines/names", 502), ("/experiments", "cut")]
)
def test_call_repeats_reads(kfp, path, how):
    fault = kfp.fail("GET", path, how, times=2)
    submitted(kfp)
    assert fault.fired == 2


@pytest.mark.parametrize(
    ("state", "kind", "code"), [("FAILED", TrainingError, 75), ("CANCELED", StoppedError, 143)]
)
def test_run_error_has_a_class_per_state(kfp, state, kind, code):
    kfp.state.states = ["RUNNING", state]
    connected, made = submitted(kfp)
    run = connected.wait_for_run(made.run_id, timeout_s=10)
    error = run_error(run, connected.failed_stages(made.run_id))
    assert (type(error), error.exit_code) == (kind, code)
    assert ("at train" in str(error)) == (state == "FAILED")


@pytest.mark.parametrize("how", [429, 500, "cut", "lost"])
def test_wait_for_run_outlives_errors_until_its_timeout(kfp, how, capfd):
    kfp.state.states = ["PENDING", "RUNNING", "RUNNING", "SUCCEEDED"]
    connected, made = submitted(kfp)
    fault = kfp.fail("GET", "/runs/", how, times=3)
    assert connected.wait_for_run(made.run_id, timeout_s=10).state == "SUCCEEDED"
    assert fault.fired == 3
    lines = capfd.readouterr().err.splitlines()
    states = [line.split()[2] for line in lines if " run " in line]
    assert states[-1] == "succeeded"
    assert len(states) == len(set(states))
    kfp.state.states = ["RUNNING"]
    _, made = submitted(kfp)
    with pytest.raises(UnavailableError, match=r"not ended in time: RUNNING\nhint: the run cont"):
        connected.wait_for_run(made.run_id, timeout_s=0.1)


def test_connect_reports_a_silent_server_within_the_limit(monkeypatch):
    monkeypatch.setattr(calls, "TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        started = time.monotonic()
        with pytest.raises(UnavailableError, match="ReadTimeoutError"):
            connect(host=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("host", ["localhost:8080", "ftp://host"])
def test_connect_refuses_a_wrong_scheme(kfp, host):
    with pytest.raises(ConfigError, match="--host"):
        connect(host=host)
    with pytest.raises(ConfigError, match="https or http"):
        connect(host=kfp.url.replace("http:", "https:"))


@pytest.mark.parametrize("how", ["page", "redirect"])
def test_connect_recognizes_a_login_page(kfp, how):
    kfp.fail("GET", "/healthz", how)
    with pytest.raises(ConfigError) as caught:
        connect(host=kfp.url)
    assert "a login page? Give --token-file" in str(caught.value)
    assert "planted-state" not in str(caught.value)
    assert PAGE.decode() not in str(caught.value)
    assert len(kfp.state.seen) == 1


def test_token_is_read_for_each_request_and_hidden(tmp_path, capfd, monkeypatch):
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(file))  # as in a pod
    with serving(token="first") as kfp:
        connected = connect(host=kfp.url)
        file.write_text(f"{TOKEN}\n")
        kfp.state.token = TOKEN
        made = submit(connected, PLAN)
        kfp.state.token = "another"
        with pytest.raises(ConfigError, match="refuses the token") as caught:
            connected.wait_for_run(made.run_id, timeout_s=5)
    seen = [(each.path, each.query, each.body) for each in kfp.state.seen]
    shown = [caught.value, made, *capfd.readouterr(), seen, connected, *kfp.state.uploaded]
    assert not any(TOKEN in str(text) for text in shown)
    assert not (tmp_path / "home").exists()


def test_token_file_that_holds_none_is_not_quoted(tmp_path):
    file = tmp_path / "token"
    with pytest.raises(NotFoundError):
        connect(host="http://127.0.0.1:1", token_file=file)
    for content in ("", "two words"):
        file.write_text(content)
        with pytest.raises(ConfigError) as caught:
            connect(host="http://127.0.0.1:1", token_file=file)
        assert "two words" not in str(caught.value)


def test_multi_user_runs_are_in_the_profiles_namespace(kfp, monkeypatch):
    standalone, _ = submitted(kfp, namespace="pipelines")
    assert (standalone.namespace, standalone.pods_namespace) == ("", "pipelines")
    with serving(multi_user=True) as shared:
        with pytest.raises(ConfigError, match="--namespace"):
            connect(host=shared.url)
        assert shared.calls("POST") == []
        connected, made = submitted(shared, namespace="alice")
        asked = {each.query.get("namespace") for each in shared.calls("GET", "/experiments")}
        state = shared.state
        assert asked == {"alice"}
        assert state.pipelines[0].namespace == state.experiments[0].namespace == "alice"
        assert made.url == f"{shared.url}/_/pipeline/?ns=alice#/runs/details/{made.run_id}"
        assert connected.pods_namespace == "alice"
        monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kubeflow.example/pipeline/")
        dashboard = "https://kubeflow.example/_/pipeline/?ns=alice#/runs/details/1"
        assert connected.run_url("1") == dashboard
        with pytest.raises(ConfigError, match="not allowed by Kubeflow Pipelines"):
            submitted(shared, namespace="bob")


def test_version_name_is_lower_case_in_a_kubernetes_store():
    planned = dataclasses.replace(PLAN, version="citeflow-0.1.0+abc")
    with serving(store="kubernetes") as kfp:
        submitted(kfp, planned)
        submitted(kfp, planned)
        (version,) = kfp.state.versions
    assert (version.name, version.display_name) == ("citeflow-0.1.0-abc", "citeflow-0.1.0+abc")


def test_get_run_takes_an_id_or_the_newest_of_a_name(kfp):
    connected, first = submitted(kfp)
    _, second = submitted(kfp)
    assert connected.get_run(first.run_id).run_id == first.run_id
    assert connected.get_run("one").run_id == second.run_id
    for name in ("two", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(NotFoundError):
            connected.get_run(name)


def test_failed_stages_leaves_out_nodes_of_argo():
    """A real run whose train stage failed, as the server's own 28 task details tell it."""
    assert failed_stages(recorded("kfp/run-failed")) == {"train": ""}


LEFT = recorded("kfp/step-pod-failed")["status"]["containerStatuses"][0]["state"]["terminated"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"main: Error (exit code 1): {LEFT['message']}", "train: the job has passed its deadline"),
        ("main: OOMKilled (exit code 137)", "train: main: OOMKilled (exit code 137)"),
    ],
)
def test_failed_run_of_a_server_without_ml_metadata_has_its_error(message, expected):
    """Fields of backend/api/v2/run.proto of Kubeflow Pipelines' master, November 2026."""
    with serving(failed_tasks={"root": ("ROOT", ""), "train": ("RUNTIME", message)}) as kfp:
        kfp.state.states = ["FAILED"]
        connected, made = submitted(kfp)
        run = connected.wait_for_run(made.run_id, timeout_s=10)
        assert run.run_details is None
        error = run_error(run, connected.failed_stages(made.run_id))
    assert str(error).startswith(f"error: failed at {expected}")


def test_fake_answers_with_the_fields_of_a_real_server(kfp):
    submitted(kfp)
    for made, known in (
        (kfp.state.pipelines, [{"description": "", **recorded("kfp/pipelines")["pipelines"][0]}]),
        (kfp.state.experiments, recorded("kfp/experiments")["experiments"]),
        (kfp.state.runs, [recorded("kfp/run-failed")]),
    ):
        assert set(kfp_server.to_json(made[0])) <= set().union(*known)
