"""From an installation to its results and back, in order; what a part needs and does not find is
its reason to skip."""

import contextlib
import io
import json
import urllib.error

import pytest
from kubernetes import client as k8s

from citeflow.cli.main import main
from citeflow.kubernetes.job_spec import CLAIM
from e2e import artifacts, steps
from e2e.helper import FACTS, LIMITED
from e2e.waiting import require

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def known():
    """What parts found out, for those after them."""
    return {}


def facts(trial, what):
    return trial.helper.ask(FACTS, trial.options.data_root, trial.name(what))


def test_doctor_finds_nothing_missing(given, progress, api):
    with progress.part("doctor"):
        options = ["--launcher", given.launcher, "--namespace", given.namespace]
        options += ["--service-account", given.service_account] if given.service_account else []
        options += ["--host", given.host] if given.host else []
        options += ["--token-file", given.token_file] if given.token_file else []
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = main(["doctor", *options])
        print(out.getvalue())
        require(code == 0, out.getvalue())


def test_the_claim_is_of_the_class_that_was_named(given, progress, api):
    if not given.storage_class:
        pytest.skip("no CITEFLOW_E2E_STORAGE_CLASS")
    with progress.part("storage class"):
        claim = k8s.CoreV1Api(api.client).read_namespaced_persistent_volume_claim(
            CLAIM, given.namespace, **LIMITED
        )
        assert claim.spec.storage_class_name == given.storage_class


def test_a_pipeline_is_uploaded_as_a_new_version(progress, trial):
    with progress.part("upload"):
        print(steps.upload(trial)["url"])


def test_a_run_trains_in_a_job_and_succeeds(progress, trial, known):
    with progress.part("run", "upload"):
        known["run_id"] = run_id = steps.start(trial, "plain")
        print(trial.server.run_page(run_id))
        known["job"] = steps.training(trial, run_id)
        known["run"] = steps.finish(trial, run_id)
        require(
            not steps.steps_that_failed(known["run"]),
            f"tasks: {steps.steps_that_failed(known['run'])}",
        )


def test_the_run_has_its_report_its_metrics_and_its_artifacts(progress, trial, known):
    with progress.part("results", "run"):
        known["plain"] = facts(trial, "plain")
        mrr = steps.check_report(known["plain"]["report"])
        require(known["plain"]["page"], "there is no published report.html on the volume")
        print(f"test MRR {mrr:.4f}")
        known["artifacts"] = steps.check_artifacts(trial, known["run_id"])


def test_the_metrics_of_the_run_page_are_those_of_the_report(progress, trial, known):
    with progress.part("metrics", "results"):
        uri = known["artifacts"]["evaluate"]["metrics"]
        try:
            found = artifacts.figures(trial.api, [uri], namespace="kubeflow")
        except k8s.ApiException as error:
            pytest.skip(f"ML Metadata is not to be asked: {error.status} {error.reason}")
        wanted = steps.check_report(known["plain"]["report"])
        require(uri in found, f"ML Metadata knows nothing of {uri}")
        assert found[uri]["test mrr"] == pytest.approx(wanted)


def test_the_train_step_shows_the_logs_of_its_workers(progress, trial, known):
    with progress.part("logs", "run"):
        text = steps.log_of(trial, steps.step_pods(trial, known["run_id"], "train")[-1])
        counts = steps.prefixed(text)
        print(counts)
        require(
            counts and steps.starts(text),
            f"no line of a worker that trains in the log of the step:\n{text}",
        )


def test_tensorboard_files_are_on_the_volume(given, progress, trial, known):
    with progress.part("tensorboard", "results"):
        events = known["plain"]["events"]
        require(events and all(events.values()), f"event files: {events}")
        if given.tensorboard:
            try:
                shown = steps.tensorboard_runs(given.tensorboard)
            except (urllib.error.URLError, OSError) as error:
                pytest.fail(f"no answer from TensorBoard at {given.tensorboard}: {error}")
            require(
                any(trial.name("plain") in name for name in shown),
                f"TensorBoard shows only {shown}",
            )


def test_a_worker_that_is_deleted_changes_nothing_of_the_result(progress, trial, known):
    with progress.part("deleted worker", "results"):
        run_id = steps.start(trial, "deleted")
        old, new = steps.delete_worker(trial, steps.training(trial, run_id))
        print(f"pod {old} was replaced by {new}")
        steps.finish(trial, run_id)
        text = steps.log_of(trial, steps.step_pods(trial, run_id, "train")[-1])
        require(steps.starts(text) >= 2, f"the training was not disturbed:\n{text}")
        found = facts(trial, "deleted")
        require(found["model"] is not None, "there is no model on the volume")
        assert found["model"] == known["plain"]["model"]


def test_a_cancelled_run_leaves_no_job(progress, trial):
    with progress.part("cancelled run", "run"):
        run_id = steps.start(trial, "cancelled", steps.ENDLESS_EPOCHS)
        job = steps.training(trial, run_id)
        trial.server.terminate(run_id)
        of_job, of_pods = steps.gone(trial, job)
        print(f"the job was gone after {of_job:.0f} s, its pods after {of_pods:.0f} s")
        run = trial.server.wait(run_id, timeout_s=steps.ORPHAN_S)
        assert run.state in ("CANCELED", "FAILED")


def test_a_repeated_step_takes_its_job_over(progress, trial, known):
    with progress.part("repeated step", "results"):
        run_id = steps.start(trial, "repeated")
        job = steps.training(trial, run_id)
        try:
            first = steps.kill_step(trial, run_id)
        except k8s.ApiException as error:
            pytest.skip(f"no command can be run in a pod: {error.status} {error.reason}")
        steps.repeated(trial, run_id, first, job)
        print(json.dumps({"job": job["metadata"]["name"], "uid": job["metadata"]["uid"]}))
        steps.finish(trial, run_id)
        require(
            [each["metadata"]["uid"] for each in steps.jobs_of(trial, run_id)]
            == [job["metadata"]["uid"]],
            "jobs",
        )
        assert facts(trial, "repeated")["model"] == known["plain"]["model"]
