"""From an installation to its results, in order; a part is skipped if it lacks what it needs."""

import json
import re
from collections import Counter

import pytest
from kubernetes import client as k8s

from citeflow.cli.main import main
from citeflow.kubernetes.job_spec import CLAIM
from e2e import artifacts, commands, steps
from e2e.helper import FACTS, LIMITS
from e2e.waiting import require

pytestmark = pytest.mark.filterwarnings("ignore")

NO_IMAGE = "citeflow-train:e2e-there-is-none"


@pytest.fixture(scope="module")
def known():
    """Findings of the parts so far."""
    return {}


def facts(trial, what):
    return trial.helper.ask(FACTS, trial.options.data_root, trial.name(what))


def test_doctor_finds_nothing_missing(given, progress, client, capsys):
    with progress.part("doctor", longest_s=180):
        argv = ["doctor", "--launcher", given.launcher, "--namespace", given.namespace]
        for name in ("service_account", "host", "token_file"):
            if value := getattr(given, name):
                argv += [f"--{name.replace('_', '-')}", value]
        code = main(argv)
        found = capsys.readouterr().out
        print(found)
        require(code == 0, found)


def test_claim_has_the_storage_class(given, progress, client):
    if not given.storage_class:
        pytest.skip("no CITEFLOW_E2E_STORAGE_CLASS")
    with progress.part("storage class", longest_s=30):
        core = k8s.CoreV1Api(client.api)
        claim = core.read_namespaced_persistent_volume_claim(CLAIM, given.namespace, **LIMITS)
        assert claim.spec.storage_class_name == given.storage_class


def test_upload_adds_a_version(progress, trial):
    with progress.part("upload", longest_s=120):
        print(steps.upload(trial))


def test_run_trains_in_a_job_and_succeeds(progress, trial, known):
    with progress.part("run", "upload", longest_s=2 * trial.timeout_s):
        known["run_id"] = run_id = steps.start(trial, "plain")
        print(trial.server.run_url(run_id))
        steps.training(trial, run_id, steps.STARTED)
        steps.finish(trial, run_id)
        assert trial.server.failed_stages(run_id) == {}


def test_run_leaves_report_and_artifacts(progress, trial, known):
    with progress.part("results", "run", longest_s=trial.helper.timeout_s):
        known["plain"] = facts(trial, "plain")
        mrr = steps.check_report(known["plain"]["report"])
        require(known["plain"]["page"], "there is no published report.html on the volume")
        print(f"test MRR {mrr:.4f}")
        known["artifacts"] = steps.check_artifacts(trial, known["run_id"])


def test_run_page_has_the_metrics_of_the_report(progress, trial, known):
    with progress.part("metrics", "results", longest_s=60):
        uri = known["artifacts"]["evaluate"]["test_metrics"]
        found = steps.metrics_of(trial, known["run_id"], "evaluate", "test_metrics")
        if not found:
            try:
                figures = artifacts.figures(trial.client.api, [uri], namespace="kubeflow")
            except k8s.ApiException as error:
                pytest.skip(f"ML Metadata may not be asked: {error.status} {error.reason}")
            require(uri in figures, f"ML Metadata knows nothing of {uri}")
            found = figures[uri]
        mrr = steps.check_report(known["plain"]["report"])
        assert found["test_mrr"] == pytest.approx(mrr, abs=1e-4)


def test_train_step_shows_the_logs_of_its_workers(progress, trial, known):
    with progress.part("logs", "run", longest_s=60):
        text = steps.log_of(trial, steps.step_pods(trial, known["run_id"], "train")[-1])
        print(Counter(re.findall(r"^(\S*(?:worker|node)-\S+) \| ", text, re.MULTILINE)))
        require(steps.starts(text), f"no worker trains in the log of the step:\n{text}")


def test_event_files_are_on_the_volume(given, progress, trial, known):
    with progress.part("tensorboard", "results", longest_s=60):
        events = known["plain"]["events"]
        require(events and all(events.values()), f"event files: {events}")
        if given.tensorboard:
            shown = steps.tensorboard_runs(given.tensorboard)
            name = trial.name("plain")
            require(any(name in each for each in shown), f"TensorBoard shows only {shown}")


def test_deleted_worker_changes_no_bit(progress, trial, known):
    with progress.part("deleted worker", "results", longest_s=2 * trial.timeout_s + 600):
        run_id = steps.start(trial, "deleted")
        job = steps.training(trial, run_id, steps.EVALUATED)
        old, new = steps.delete_worker(trial, job)
        print(f"pod {old} was replaced by {new}")
        steps.finish(trial, run_id)
        text = steps.log_of(trial, steps.step_pods(trial, run_id, "train")[-1])
        require(steps.starts(text) >= 2, f"the training was not disturbed:\n{text}")
        found = facts(trial, "deleted")
        require(found["model"] is not None, "there is no model on the volume")
        assert found["model"] == known["plain"]["model"]


def test_cancelled_run_leaves_no_job(progress, trial):
    with progress.part("cancelled run", "upload", longest_s=trial.timeout_s + 720):
        run_id = steps.start(trial, "cancelled", steps.ENDLESS_EPOCHS)
        job = steps.training(trial, run_id, steps.STARTED)
        trial.server.terminate_run(run_id)
        job_s, pods_s = steps.gone(trial, job)
        print(f"the job was gone after {job_s:.0f} s, its pods after {pods_s:.0f} s")
        run = trial.server.wait_for_run(run_id, timeout_s=steps.ORPHAN_S)
        assert run.state in ("CANCELED", "FAILED")


def test_repeated_step_adopts_its_job(progress, trial, known):
    with progress.part("repeated step", "results", longest_s=3 * trial.timeout_s):
        run_id = steps.start(trial, "repeated")
        job = steps.training(trial, run_id, steps.STARTED)
        try:
            first = steps.kill_step(trial, run_id)
        except k8s.ApiException as error:
            pytest.skip(f"no command can be run in a pod: {error.status} {error.reason}")
        steps.adopted(trial, run_id, first, job)
        print(f"job {job.name}, uid {job.uid}")
        steps.finish(trial, run_id)
        assert [each.uid for each in steps.jobs_of(trial, run_id)] == [job.uid]
        assert facts(trial, "repeated")["model"] == known["plain"]["model"]


@pytest.mark.parametrize(
    ("part", "job", "words"),
    [
        ("unschedulable", {"cpu": "1000", "unschedulable_minutes": 1.0}, ["Insufficient cpu"]),
        (
            "out of memory",
            {"memory": "220Mi", "shared_memory": "64Mi"},
            ["out of memory: limit 220 MiB, needs about "],
        ),
        (
            "image missing",
            {"image": NO_IMAGE, "image_pull_policy": "Never"},
            ["no image for the pods", NO_IMAGE],
        ),
    ],
)
def test_hopeless_run_ends_early_and_says_why(progress, trial, part, job, words):
    with progress.part(part, "upload", longest_s=trial.timeout_s):
        run_id = steps.start(trial, part.replace(" ", "-"), **job)
        commands.check_failure(trial, run_id, *words, timeout_s=trial.timeout_s)
        jobs = [each.name for each in steps.jobs_of(trial, run_id) if each.end is None]
        require(not jobs, f"jobs that still run: {jobs}")


def test_outage_of_the_api_server_changes_no_bit(given, progress, trial, known):
    if not given.outage_command:
        pytest.skip("no CITEFLOW_E2E_OUTAGE_COMMAND takes the API server away for a minute")
    with progress.part("outage", "results", longest_s=2 * trial.timeout_s + commands.OUTAGE_S):
        run_id = steps.start(trial, "outage")
        job = steps.training(trial, run_id, steps.STARTED)
        away_s = commands.outage(trial)
        require(away_s > 0, "the API server was always there")
        print(f"the API server was away for {away_s:.0f} s")
        steps.finish(trial, run_id)
        assert [each.uid for each in steps.jobs_of(trial, run_id)] == [job.uid]
        assert facts(trial, "outage")["model"] == known["plain"]["model"]


def test_kubeconfig_with_a_token_reaches_pipelines(given, progress, trial, tmp_path):
    if given.host:
        pytest.skip("CITEFLOW_E2E_HOST is given: not through the API server")
    with progress.part("token", "upload", longest_s=180):
        try:
            with commands.account(trial) as account:
                path = str(commands.write_kubeconfig(trial, account, tmp_path / "kubeconfig"))
                listing = ["runs", "list", "--namespace", given.namespace]
                code, out, err = commands.citeflow(*listing, timeout_s=60, KUBECONFIG=path)
                require(code == 0, err)
                doctor = ["doctor", "--json", "--namespace", given.namespace]
                _, found, err = commands.citeflow(*doctor, timeout_s=90, KUBECONFIG=path)
        except k8s.ApiException as error:
            pytest.skip(f"no account can be made: {error.status} {error.reason}")
        print(f"{len(out.splitlines())} runs are listed")
        states = {each["what"]: each["status"] for each in map(json.loads, found.splitlines())}
        require(states.get("Kubeflow Pipelines") == "ok", f"doctor: {states}\n{err}")
