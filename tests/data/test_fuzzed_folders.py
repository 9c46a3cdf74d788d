"""Datasets that were damaged at random: each is read, or refused in one line, and nothing else."""

import gzip
import random
import re
import shutil
from collections import Counter

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from bad_folders import write_lines
from damage import damage
from ogb_archive import write_ogb

from citeflow import config, files
from citeflow.data.datasets import download_dataset
from citeflow.errors import CiteflowError
from citeflow.graph.preparation import prepare

CONFIG = config.load(overrides=["data.eval_negatives=5", "data.holdout=0.2", "data.text_dim=4"])
KINDS = {"raw": "RawDataset", "prepared": "PreparedGraph"}


def write_plain(folder):
    folder.mkdir()
    papers = [f"p{row},{1990 + row},{row / 10}" for row in range(30)]
    pairs = [f"p{row},p{row - step}" for row in range(30) for step in (1, 2, 5) if row >= step]
    write_lines(folder / "papers.csv", ["id,year,w1", *papers])
    write_lines(folder / "citations.csv", ["citing,cited", *pairs])


def write_dated(folder):
    write_plain(folder)
    rows = [
        f'p{row},2000-02-{row % 28 + 1:02},"of paper, {row}",common words {row % 7}'
        for row in range(30)
    ]
    write_lines(folder / "papers.csv", ["id,date,title,abstract", *rows])
    np.save(folder / "features.npy", np.arange(60, dtype=np.float64).reshape(30, 2))


def write_packed(folder):
    write_plain(folder)
    for plain in list(folder.iterdir()):
        path = plain.with_name(f"{plain.name}.gz")
        path.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()


def write_parquet(folder):
    write_plain(folder)
    for plain in list(folder.iterdir()):
        pq.write_table(pyarrow.csv.read_csv(plain), plain.with_suffix(".parquet"))
        plain.unlink()


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    """One dataset of each kind."""
    root = tmp_path_factory.mktemp("intact")
    for make in (write_plain, write_dated, write_packed, write_parquet, write_ogb):
        make(root / make.__name__)
    return sorted(root.iterdir())


def outcome(folder, root):
    try:
        raw = download_dataset(str(folder), data_root=root, config=CONFIG)
        prepare(raw, data_root=root, config=CONFIG.data)
    except CiteflowError as error:
        is_one_line = re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", str(error))
        return "refused" if is_one_line else repr(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


def test_intact_datasets_are_read(intact, tmp_path):
    assert [outcome(folder, tmp_path) for folder in intact] == ["read"] * 5


SEEDS = [pytest.param(n, marks=pytest.mark.fault("F27", nightly=n > 0)) for n in range(20)]


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_dataset_is_read_or_refused_in_one_line(seed, intact, tmp_path):
    rng = random.Random(seed)
    num_datasets = 150 if seed else 60
    outcomes = Counter()
    for number in range(num_datasets):
        folder, root = tmp_path / f"in{number}", tmp_path / f"root{number}"
        shutil.copytree(rng.choice(intact), folder)
        victim = rng.choice(sorted(path for path in folder.rglob("*.*") if path.suffix != ".md"))
        victim.write_bytes(damage(victim.read_bytes(), rng))
        outcomes[outcome(folder, root)] += 1
        for path in (path for parent in root.glob("*") for path in parent.iterdir()):
            assert not path.name.startswith(".")
            files.verify(path, KINDS[path.parent.name])
        shutil.rmtree(folder)
        shutil.rmtree(root, ignore_errors=True)
    crashes = outcomes.keys() - {"refused", "read"}
    assert not crashes
    assert min(outcomes["refused"], outcomes["read"]) >= num_datasets // 15
