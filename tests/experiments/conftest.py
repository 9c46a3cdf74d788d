"""Studies that train nothing, and a database."""

import postgres as postgres_server
import pytest

from citeflow.config import Config
from citeflow.experiments import search_space, study
from citeflow.experiments.study import STORAGE_VARIABLE, Definition
from citeflow.paths import RunPaths

SPACE = "{train.lr: {low: 0.001, high: 0.1, log: true}, model.hidden_channels: [64, 128, 256]}"


@pytest.fixture(autouse=True)
def _no_database(monkeypatch):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)


@pytest.fixture
def define():
    """Makes the definition of a study."""

    def define(base=Config(), space=SPACE, workers=1, graph="a"):  # noqa: B008
        space = search_space.from_yaml(space, base)
        return Definition(base=base, space=space, workers=workers, graph_sha256=graph)

    return define


@pytest.fixture
def run(tmp_path):
    """Paths of the search `s`."""
    return RunPaths(tmp_path, "s")


@pytest.fixture
def states(run):
    """Reads the states of the first trials."""
    return lambda trials: [each.state.name.lower() for each in study.read_trials(run, trials)]


@pytest.fixture
def postgres(monkeypatch):
    """A PostgreSQL server of this test, for its studies."""
    with postgres_server.serving() as url:
        monkeypatch.setenv(STORAGE_VARIABLE, url)
        yield
