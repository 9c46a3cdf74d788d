"""What several trainings that are disturbed are compared with."""

import pytest

from faults.disturbed_training import BETWEEN_CHECKPOINTS, STEPS, Training


@pytest.fixture(scope="session")
def undisturbed(prepared, tmp_path_factory):
    """A training of sixty steps to which nothing happened."""
    run = Training(prepared, tmp_path_factory.mktemp("undisturbed") / "run")
    run.launch()
    assert (run.starts, run.events("fired")) == ([0], [])
    assert run.checkpoints == [STEPS - BETWEEN_CHECKPOINTS, STEPS]
    return run


@pytest.fixture
def run(prepared, tmp_path):
    """A training that has not begun."""
    return Training(prepared, tmp_path / "run")
