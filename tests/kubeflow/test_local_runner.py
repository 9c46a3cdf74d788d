import builtins
import logging
import os
from pathlib import Path

import pytest
from kfp import compiler, dsl

from citeflow.errors import CiteflowError, DataError
from citeflow.files import termination_message
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


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a pipeline of one step; the folder counts how often the step was tried."""
    compiler.Compiler().compile(acting, str(tmp_path / "acting.yaml"))
    monkeypatch.setattr(local_runner, "compiled", lambda name: tmp_path / "acting.yaml")

    def start(how, **options):
        local_runner.run(
            {"how": how, "folder": str(tmp_path)}, scratch=tmp_path / "scratch", **options
        )

    return start


def test_progress_comes_through_and_the_rest_does_not(run, capfd):
    run("work")
    out, err = capfd.readouterr()
    assert out == ""
    assert "act begins how=work" in err
    assert len(err.splitlines()) == 1


def test_verbose_shows_the_rest_too(run, capfd):
    run("work", verbose=True)
    assert "something else" in capfd.readouterr().err


def test_a_step_s_own_error_is_raised_at_once_and_tried_only_once(run, tmp_path):
    with pytest.raises(DataError) as caught:
        run("refuse")
    assert str(caught.value) == "error: bad row: papers.csv:3\nhint: mend it"
    assert (tmp_path / "attempts").read_text() == "x"


def test_a_crash_is_shown_and_its_step_named(run, capfd):
    with pytest.raises(CiteflowError, match="act") as caught:
        run("crash")
    assert caught.value.exit_code == 70
    err = capfd.readouterr().err
    assert err[err.index("Traceback") :].rstrip().endswith("ZeroDivisionError")


def test_nothing_is_left_behind(run, tmp_path):
    before = (builtins.print, logging.getLogger().handlers[:], dict(os.environ))
    run("work")
    assert list((tmp_path / "scratch").iterdir()) == []
    assert (builtins.print, logging.getLogger().handlers[:], dict(os.environ)) == before
    assert termination_message.VARIABLE not in os.environ


def test_what_lay_in_the_scratch_folder_stays(run, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "mine").touch()
    run("work")
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["mine"]


def test_the_pipeline_of_the_checkout_is_the_one_that_runs(checkout):
    assert local_runner.compiled() == checkout / "pipelines" / "citation" / "pipeline.yaml"
    assert isinstance(local_runner.compiled(), Path)
