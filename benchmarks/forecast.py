"""Measure what trainings of many kinds need beside the estimate of it.

    python benchmarks/forecast.py DATA_ROOT [--hepth FOLDER] [--only hubs text] [--minutes 0.25]

Graphs are made below DATA_ROOT: synthetic ones of several sizes, one where a paper lists four times
as many references, one of which the papers have a text in place of features, one with hubs. Each
training validates and calibrates, and `memory.py` watches it. Prints one JSON object a line: the
shape that the estimate is made of, workers, settings, the peak without the command itself and the
estimate, both in MiB, and the ratio of the two. `tests/tasks/test_citation_memory.py` has them.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from hubs import write_folder

from citeflow import config, files
from citeflow.data.synthetic import make_synthetic
from citeflow.graph.prepared import PreparedGraph
from citeflow.tasks.citation_memory import measure

FULL_SIZE = 2_927_963

SEED = (
    "model.num_layers=5 model.predictor=dot train.loss=bce model.hidden_channels=256 "
    "train.nodes_per_batch=40000 model.features=ones model.aggr=add model.normalize=true"
)
ROWS = [
    ("small", 1, ""),
    ("demo", 1, ""),
    ("demo", 1, "model.predictor=dot"),
    ("demo", 1, "model.predictor=mlp"),
    ("demo", 2, ""),
    ("hubs", 1, ""),
    ("hubs", 2, ""),
    ("hepth", 1, ""),
    ("hepth", 2, ""),
    ("hepth", 4, "model.hidden_channels=32 train.nodes_per_batch=1000"),
    ("text", 1, ""),
    ("middle", 1, "model.hidden_channels=32 train.nodes_per_batch=2000"),
    ("middle", 1, "train.nodes_per_batch=60000"),
    ("middle", 1, "train.num_negatives=1000"),
    ("middle", 1, "model.predictor=dot"),
    ("middle", 1, "model.predictor=mlp"),
    ("middle", 1, SEED),
    ("middle", 2, "model.hidden_channels=256"),
    ("middle", 2, "model.hidden_channels=512 train.nodes_per_batch=5000"),
    ("dense", 2, "train.nodes_per_batch=3000"),
    ("large", 1, "train.nodes_per_batch=50000"),
    ("large", 2, ""),
    ("full", 1, ""),
    ("full", 2, ""),
]
"""Graph, workers, settings."""

GRAPHS = {
    "small": "synthetic.num_papers=5000",
    "demo": "synthetic.num_papers=20000",
    "hubs": "data.holdout=0.002",
    "hepth": "",
    "text": "",
    "middle": "synthetic.num_papers=97598 data.holdout=0.03",
    "dense": "synthetic.num_papers=30000 synthetic.citations_per_paper=41.76",
    "large": "synthetic.num_papers=300000",
    "full": f"synthetic.num_papers={FULL_SIZE}",
}
"""Settings by which each graph is made."""

HUB_PAPERS = 100_000
TEXT_PAPERS = 30_000
WORDS = 20_000
TITLE_WORDS, ABSTRACT_WORDS = 8, 60


def main() -> None:
    """Measure, row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data_root", type=Path, help="where graphs and runs are kept")
    parser.add_argument("--hepth", type=Path, help="citation folder of hep-th, left out without")
    parser.add_argument("--only", nargs="*", default=list(GRAPHS), choices=list(GRAPHS))
    parser.add_argument("--minutes", type=float, default=0.25, help="length of each training")
    options = parser.parse_args()
    for name in options.only:
        if name == "hepth" and options.hepth is None:
            continue
        graph = _prepare(name, options)
        shape = dataclasses.asdict(measure(PreparedGraph.open(graph)))
        for _, workers, settings in (row for row in ROWS if row[0] == name):
            wanted = f"{settings} {_of_data(name)}".strip()
            found = _train(graph, workers, wanted, options)
            ratio = found["estimate"] / found["training_step"]
            row = {"graph": name, "shape": shape, "workers": workers, "settings": wanted}
            sizes = {"peak": found["training_step"], "estimate": found["estimate"]}
            print(json.dumps({**row, **sizes, "ratio": round(ratio, 3)}), flush=True)


def write_texts(folder: Path) -> None:
    """Write a synthetic graph of which the papers have titles and abstracts in place of features.

    Papers whose features lie in the same direction have most words in common.
    """
    settings = config.load(overrides=[f"synthetic.num_papers={TEXT_PAPERS}"])
    graph = make_synthetic(settings.synthetic)
    assert graph.x_NF is not None
    assert graph.day_N is not None
    rng = np.random.default_rng(0)
    nearest_N = np.argsort(graph.x_NF @ rng.standard_normal(graph.x_NF.shape[1]))
    first_N = np.empty(TEXT_PAPERS, np.int64)
    first_N[nearest_N] = np.arange(TEXT_PAPERS) * (WORDS // 2) // TEXT_PAPERS

    def texts(length: int) -> list[str]:
        word_NL = first_N[:, None] + rng.exponential(WORDS / 20, (TEXT_PAPERS, length)).astype(int)
        return [" ".join(f"word{word}" for word in row) for row in (word_NL % WORDS).tolist()]

    year_N = graph.day_N.astype("datetime64[D]").astype("datetime64[Y]").astype(int) + 1970
    papers = {
        "id": graph.id_N,
        "year": year_N,
        "title": np.array(texts(TITLE_WORDS)),
        "abstract": np.array(texts(ABSTRACT_WORDS)),
    }
    citations = {"citing": graph.edge_2E[0], "cited": graph.edge_2E[1]}
    with files.new_directory(folder) as work:
        files.save_table(work / "papers.parquet", papers)
        files.save_table(work / "citations.parquet", citations)


def _prepare(name: str, options: argparse.Namespace) -> Path:
    """Make a graph, unless it is there; return its folder."""
    dataset = "synthetic"
    if name == "hepth":
        dataset = str(options.hepth)
    elif name in ("hubs", "text"):
        folder = options.data_root / name
        if not folder.exists() and name == "hubs":
            write_folder(folder, HUB_PAPERS)
        elif not folder.exists():
            write_texts(folder)
        dataset = str(folder)
    raw = _citeflow("download", dataset, options, GRAPHS[name])["path"]
    return Path(_citeflow("preprocess", raw, options, GRAPHS[name])["path"])


def _citeflow(
    command: str, what: str, options: argparse.Namespace, settings: str
) -> dict[str, str]:
    line = [sys.executable, "-m", "citeflow", command, what, "--data-root", str(options.data_root)]
    line += _settings(settings)
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result


def _of_data(name: str) -> str:
    """Return the settings of a graph that the estimate depends on, too."""
    return " ".join(each for each in GRAPHS[name].split() if each.startswith("data."))


def _train(
    graph: Path, workers: int, settings: str, options: argparse.Namespace
) -> dict[str, float]:
    """Train for a while, watched."""
    num_before = len(list((options.data_root / "runs").glob("*")))
    line = [sys.executable, str(Path(__file__).with_name("memory.py"))]
    line += [str(options.data_root), str(workers), "train", str(graph)]
    line += ["--run-name", f"row-{num_before}", *_settings(settings)]
    line += _settings(f"train.minutes={options.minutes} train.num_validations=1")
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _settings(settings: str) -> list[str]:
    return [argument for setting in settings.split() for argument in ("--set", setting)]


if __name__ == "__main__":
    main()
