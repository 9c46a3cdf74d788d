"""Fixtures that tests of several parts use."""

import contextlib
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from faults.plugin import pytest_collection_modifyitems, pytest_configure  # noqa: F401

from citeflow import config, files, stages
from citeflow.config import Config

SETTINGS = [
    "synthetic.num_papers=400",
    "data.holdout=0.2",
    "data.eval_negatives=50",
    "model.hidden_channels=16",
    "train.epochs=6",
    "train.nodes_per_batch=100",
    "train.num_negatives=64",
    "train.lr=0.01",
    "train.num_validations=6",
]
"""A training of a few seconds that beats every baseline."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A small citation graph, from which one citation was taken away."""

    data_root: Path
    graph: Path
    settings: list[str]
    missing: tuple[str, str]
    """The citation that was taken away."""

    @property
    def config(self) -> Config:
        return config.load(overrides=self.settings)


@dataclass(frozen=True, kw_only=True)
class Trained(Prepared):
    """A model of that graph, and its report."""

    run_dir: Path
    log_dir: Path
    model: Path
    report: Path


@pytest.fixture
def figure():
    return lambda **_: None


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds src, components and pipelines."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Prepared:
    """Four hundred papers with text ids, titles, years and features."""
    root, settings = tmp_path_factory.mktemp("prepared"), config.load(overrides=SETTINGS)
    missing = _write_folder(root / "papers", settings)
    raw = stages.download(str(root / "papers"), data_root=root, config=settings)
    graph = stages.preprocess(raw, data_root=root, config=settings)
    return Prepared(data_root=root, graph=graph, settings=SETTINGS, missing=missing)


@pytest.fixture(scope="session")
def train_alone():
    """The stage `train`, its one worker being this process."""
    from citeflow.training import launch

    def train(graph: Path, run_dir: Path, log_dir: Path, settings: Config) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "_run", _train_alone)
            return stages.train(graph, run_dir=run_dir, log_dir=log_dir, config=settings, workers=1)

    return train


@pytest.fixture(scope="session")
def trained(prepared, train_alone) -> Trained:
    """What `train` and `evaluate` leave."""
    run_dir, log_dir = (prepared.data_root / part / "small" for part in ("runs", "logs"))
    model = train_alone(prepared.graph, run_dir, log_dir, prepared.config)
    report = stages.evaluate(model, graph=prepared.graph, run_dir=run_dir)
    return Trained(**vars(prepared), run_dir=run_dir, log_dir=log_dir, model=model, report=report)


@pytest.fixture(scope="module")
def group():
    """This process as the only rank."""
    with alone() as group:
        yield group


@contextlib.contextmanager
def alone():
    """Join a group of one."""
    from citeflow.training.distributed import joined

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    rank = {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "LOCAL_WORLD_SIZE": 1,
        "WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in rank.items():
            patch.setenv(name, str(value))
        with joined() as group:
            yield group


def _train_alone(command, environment, given_up) -> tuple[int, bool]:
    """Do what torchrun would let one worker do."""
    from citeflow.training import worker

    job = Path(command[-1])
    old = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with alone() as group:
            worker.work(group, job.parent, files.read_json(job))
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return 0, False


def _write_folder(folder: Path, settings: Config) -> tuple[str, str]:
    """Write a citation folder without the citation that most others point to; returns the ids of
    its two papers."""
    from citeflow.data.synthetic import make_synthetic

    graph = make_synthetic(settings.synthetic)
    source_E, target_E = graph.edge_2E
    linked_NN = np.zeros((len(graph.id_N), len(graph.id_N)), dtype=int)
    linked_NN[source_E, target_E] = linked_NN[target_E, source_E] = 1
    common_E = (linked_NN @ linked_NN)[source_E, target_E]
    is_middle_E = (source_E > 150) & (source_E < 250)
    taken = np.flatnonzero(is_middle_E)[np.argmax(common_E[is_middle_E])]
    names = np.array([f"p{i}" for i in graph.id_N])
    titles = [f"On {name}" for name in names]
    years = graph.day_N.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    citing, cited = (np.delete(names[ends], taken) for ends in (source_E, target_E))
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", {"id": names, "year": years, "title": titles})
        files.save_table(work / "citations.parquet", {"citing": citing, "cited": cited})
        files.save_array(work / "features.npy", graph.x_NF)
    return str(names[source_E[taken]]), str(names[target_E[taken]])
