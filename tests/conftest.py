"""Fixtures that tests of several parts use."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from faults.plugin import pytest_collection_modifyitems, pytest_configure  # noqa: F401
from single_rank import restored_signal_handlers, run_worker_here, single_rank_environment

from citeflow import config, files
from citeflow.config import Config
from citeflow.paths import RunPaths


def pytest_itemcollected(item):
    """Keep the tests of a folder in one of pytest-xdist's processes, as they share fixtures."""
    item.add_marker(pytest.mark.xdist_group(item.path.parent.name))


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

    run: RunPaths
    model: Path
    report: Path

    @property
    def run_dir(self) -> Path:
        return self.run.folder

    @property
    def log_dir(self) -> Path:
        return self.run.logs


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds src, components and pipelines."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Prepared:
    """Four hundred papers with text ids, titles, years and features."""
    from citeflow.data.datasets import download_dataset
    from citeflow.graph.preparation import prepare

    root = tmp_path_factory.mktemp("prepared")
    settings = config.load(overrides=SETTINGS)
    missing = _write_folder(root / "papers", settings)
    raw = download_dataset(str(root / "papers"), data_root=root, config=settings)
    graph = prepare(raw, data_root=root, config=settings.data)
    return Prepared(data_root=root, graph=graph, settings=SETTINGS, missing=missing)


@pytest.fixture(scope="session")
def train_alone():
    """`train_locally`, its one worker being this process."""
    from citeflow.training import launch

    def train(graph: Path, run: RunPaths, settings: Config) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "run_workers", run_worker_here)
            return launch.train_locally(graph, run, config=settings, workers=1)

    return train


@pytest.fixture(scope="session")
def trained(prepared, train_alone) -> Trained:
    """What `train` and `evaluate` leave."""
    from citeflow.evaluation.evaluator import evaluate

    run = RunPaths(prepared.data_root, "small")
    model = train_alone(prepared.graph, run, prepared.config)
    report = evaluate(model, graph=prepared.graph, run=run)
    return Trained(**vars(prepared), run=run, model=model, report=report)


@pytest.fixture(scope="session")
def text_trained(tmp_path_factory, train_alone) -> Trained:
    """Three hundred papers whose features are made of titles and abstracts, and a model."""
    from citeflow.data.datasets import download_dataset
    from citeflow.graph.preparation import prepare

    root = tmp_path_factory.mktemp("text")
    changes = ["synthetic.num_papers=300", "data.text_dim=16", "train.epochs=2"]
    settings = config.load(overrides=[*SETTINGS, *changes])
    _write_text_folder(root / "papers", settings)
    raw = download_dataset(str(root / "papers"), data_root=root, config=settings)
    graph = prepare(raw, data_root=root, config=settings.data)
    run = RunPaths(root, "text")
    model = train_alone(graph, run, settings)
    return Trained(
        data_root=root,
        graph=graph,
        settings=[*SETTINGS, *changes],
        missing=("", ""),
        run=run,
        model=model,
        report=run.report,
    )


@pytest.fixture(scope="module")
def group():
    """This process as the only rank."""
    from citeflow.training.distributed import init_group

    with single_rank_environment(), init_group() as group:
        yield group


@pytest.fixture
def signal_handlers():
    """Restore the signal handlers of this process."""
    with restored_signal_handlers():
        yield


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


def _write_text_folder(folder: Path, settings: Config) -> None:
    """Write a citation folder whose words are the strongest features of a synthetic graph."""
    from citeflow.data.synthetic import make_synthetic

    graph = make_synthetic(settings.synthetic)
    words = [[f"theme{i}" for i in np.argsort(-x_F)[:12]] for x_F in graph.x_NF]
    columns = {
        "id": graph.id_N,
        "year": graph.day_N.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970,
        "title": [f"Paper {i}: {' '.join(each[:4])}" for i, each in enumerate(words)],
        "abstract": [" ".join(each[4:]) for each in words],
    }
    citing, cited = graph.edge_2E
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", columns)
        files.save_table(work / "citations.parquet", {"citing": citing, "cited": cited})
