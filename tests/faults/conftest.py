"""The training that disturbed ones are compared with."""

import pytest

from faults.disturbed_training import BETWEEN_CHECKPOINTS, STEPS, Training


@pytest.fixture(scope="session")
def undisturbed(prepared, tmp_path_factory):
    """A training of sixty steps without a fault."""
    run = Training(prepared, tmp_path_factory.mktemp("undisturbed"))
    run.launch()
    assert run.starts == [0]
    assert run.events("fired") == []
    assert run.checkpoints == [STEPS - BETWEEN_CHECKPOINTS, STEPS]
    return run


@pytest.fixture
def run(prepared, tmp_path):
    """A training that has not started."""
    return Training(prepared, tmp_path)
