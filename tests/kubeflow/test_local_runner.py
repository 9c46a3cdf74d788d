import builtins
import logging
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from kfp import compiler, dsl

from citeflow.errors import CiteflowError, DataError
from citeflow.kubeflow import local_runner


@dsl.component(base_image="python", install_kfp_package=False)
def act(how: str, folder: str) -> str:
    """Behave as a step may."""
    import os
    import sys

    from citeflow.errors import DataError
    from citeflow.files import termination_message
    from citeflow.utils.logging import log

    log("act", "begins", how=how)
    with open(os.path.join(folder, "attempts"), "a") as file:
        file.write("x")
    if how == "refuse":
        termination_message.write(DataError("bad row", "papers.csv:3", hint="mend it"))
        sys.exit(65)
    if how == "crash":
        raise ZeroDivisionError
    print("something else")
    return how


@dsl.pipeline(name="acting")
def acting(how: str, folder: str):
    act(how=how, folder=folder).set_retry(2, backoff_duration="60s").set_cpu_limit("1")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    path = tmp_path_factory.mktemp("acting") / "acting.yaml"
    compiler.Compiler().compile(acting, str(path))
    return path


@pytest.fixture
def run(pipeline, tmp_path):
    """Runs a pipeline of one step; the folder counts how often the step was tried."""

    def start(how, **options):
        arguments = {"how": how, "folder": str(tmp_path)}
        local_runner.run_pipeline(pipeline, arguments, scratch=tmp_path / "scratch", **options)

    return start


@pytest.mark.parametrize("verbose", [False, True])
def test_run_pipeline_shows_progress_and_leaves_nothing(run, capfd, tmp_path, verbose):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mine").touch()
    before = (builtins.print, logging.getLogger().handlers[:], dict(os.environ))
    run("work", verbose=verbose)
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["mine"]
    assert (builtins.print, logging.getLogger().handlers[:], dict(os.environ)) == before
    out, err = capfd.readouterr()
    assert out == ""
    assert "act begins how=work" in err
    assert ("something else" in err) == verbose
    assert verbose or len(err.splitlines()) == 1


def test_run_pipeline_raises_the_error_of_a_step_without_a_retry(run, tmp_path):
    with pytest.raises(DataError) as caught:
        run("refuse")
    assert str(caught.value) == "error: bad row: papers.csv:3\nhint: mend it"
    assert (tmp_path / "attempts").read_text() == "x"


def test_run_pipeline_shows_a_crash_and_names_the_step(run, capfd):
    with pytest.raises(CiteflowError, match="act") as caught:
        run("crash")
    assert caught.value.exit_code == 70
    err = capfd.readouterr().err
    assert err[err.index("Traceback") :].rstrip().endswith("ZeroDivisionError")


def test_run_pipeline_takes_the_working_folder_for_data(pipeline, tmp_path):
    """A folder `docker`, as in a checkout, and a module that a step imports, are no code."""
    (tmp_path / "docker").mkdir()
    (tmp_path / "yaml.py").write_text("raise SystemExit('this is code')")
    (tmp_path / "kfp.py").write_text("raise SystemExit('this is code')")
    code = (
        "import sys; sys.path.pop(0); from pathlib import Path; "
        "from citeflow.kubeflow.local_runner import run_pipeline; "
        f"run_pipeline(Path({str(pipeline)!r}), {{'how': 'work', 'folder': {str(tmp_path)!r}}}, "
        f"scratch=Path({str(tmp_path / 'scratch')!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, "act begins" in done.stderr) == (0, True), done.stderr


@dsl.component(base_image="python", install_kfp_package=False)
def struggle(how: str, folder: str, made: dsl.Output[dsl.Metrics]) -> int:
    """Be a step of citeflow that is killed, or that a server does not answer."""
    from citeflow.attempts import begin_attempt

    begin_attempt()
    import os
    import signal
    from pathlib import Path

    from citeflow.artifacts import component_entrypoint
    from citeflow.errors import DataError, UnavailableError

    with component_entrypoint():
        attempts = Path(folder) / "attempts"
        with attempts.open("a") as file:
            file.write("x")
        number = len(attempts.read_text())
        if how == "killed always" or (how == "killed once" and number == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "refused once" and number == 1:
            raise UnavailableError("no answer", "server", hint="wait")
        if how == "out of memory once" and number == 1:
            raise MemoryError
        if how == "bad data":
            raise DataError("bad row", "papers.csv:3")
        made.log_metric("attempts", number)
    return number


@dsl.pipeline(name="struggling")
def struggling(how: str, folder: str):
    first = struggle(how=how, folder=folder)
    act(how=f"after {first.outputs['Output']}", folder=folder)


@pytest.fixture(scope="module")
def struggling_step(tmp_path_factory):
    path = tmp_path_factory.mktemp("struggling") / "struggling.yaml"
    compiler.Compiler().compile(struggling, str(path))
    return path


@pytest.mark.parametrize("how", ["killed once", "refused once", "out of memory once"])
def test_step_goes_on_after_its_crash(struggling_step, tmp_path, capfd, how):
    arguments = {"how": how, "folder": str(tmp_path)}
    local_runner.run_pipeline(struggling_step, arguments, scratch=tmp_path / "scratch")
    err = capfd.readouterr().err
    assert "step starts again after=" in err
    assert "act begins how=after 2" in err


@pytest.mark.parametrize(
    ("how", "attempts", "code", "error"),
    [
        ("killed always", 3, 137, "error: the step was killed 3 times, the last time by: SIGKILL"),
        ("bad data", 1, 65, "error: bad row: papers.csv:3"),
    ],
)
def test_step_fails_with_its_reason_last(struggling_step, tmp_path, how, attempts, code, error):
    arguments = {"how": how, "folder": str(tmp_path)}
    with pytest.raises(CiteflowError) as caught:
        local_runner.run_pipeline(struggling_step, arguments, scratch=tmp_path / "scratch")
    assert (tmp_path / "attempts").read_text() == "x" * attempts
    assert str(caught.value).splitlines()[0] == error
    assert caught.value.exit_code == code


@dsl.component(base_image="python", install_kfp_package=False)
def linger(folder: str):
    """Be a step of citeflow that has long to do."""
    from citeflow.attempts import begin_attempt

    begin_attempt()
    import time
    from pathlib import Path

    from citeflow.artifacts import component_entrypoint

    try:
        with component_entrypoint():
            (Path(folder) / "began").touch()
            while True:
                time.sleep(60)
    finally:
        (Path(folder) / "ended").touch()


@dsl.pipeline(name="lingering")
def lingering(folder: str):
    linger(folder=folder)


@pytest.mark.fault("F46")
def test_step_stops_in_order_when_the_process_that_runs_the_pipeline_is_killed(tmp_path):
    pipeline = tmp_path / "lingering.yaml"
    compiler.Compiler().compile(lingering, str(pipeline))
    code = (
        "from pathlib import Path; from citeflow.kubeflow.local_runner import run_pipeline; "
        f"run_pipeline(Path({str(pipeline)!r}), {{'folder': {str(tmp_path)!r}}}, "
        f"scratch=Path({str(tmp_path / 'scratch')!r}))"
    )
    runner = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (tmp_path / "began").exists():
        assert runner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    step = psutil.Process(runner.pid).children(recursive=True)
    runner.kill()
    assert runner.wait(60) == -signal.SIGKILL
    assert psutil.wait_procs(step, timeout=120)[1] == []
    assert (tmp_path / "ended").exists()
