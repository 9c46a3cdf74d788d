"""Datasets that were damaged at random: each is read, or refused in one line, and never ends in anything else."""

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
from ogb_archive import write_ogb

from citeflow import config, files, stages
from citeflow.errors import CiteflowError

SETTINGS = config.load(overrides=["data.eval_negatives=5", "data.holdout=0.2", "data.text_dim=4"])
WORDS = [
    "",
    "-1",
    "nan",
    "1e400",
    "99999999999999999999",
    '"',
    "\0",
    "\n\n",
    ",",
    ",,,,",
    "\xff",
    "id",
    "p0",
    "\r",
    "5",
]


def write_plain(folder):
    folder.mkdir()
    write_lines(
        folder / "papers.csv",
        ["id,year,w1", *(f"p{row},{1990 + row},{row / 10}" for row in range(30))],
    )
    pairs = [f"p{row},p{row - step}" for row in range(30) for step in (1, 2, 5) if row >= step]
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
    for name in ("papers", "citations"):
        plain = folder / f"{name}.csv"
        (folder / f"{name}.csv.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()


def write_parquet(folder):
    write_plain(folder)
    for name in ("papers", "citations"):
        plain = folder / f"{name}.csv"
        pq.write_table(pyarrow.csv.read_csv(plain), folder / f"{name}.parquet")
        plain.unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One dataset of each kind in which all is well."""
    root = tmp_path_factory.mktemp("whole")
    for make in (write_plain, write_dated, write_packed, write_parquet, write_ogb):
        make(root / make.__name__)
    return sorted(root.iterdir())


def damaged(content, rng):
    """The bytes with one or three flips, cuts, repetitions or odd words in them; of gzip, often what is inside."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        return gzip.compress(damaged(gzip.decompress(content), rng), mtime=0)
    for _ in range(rng.choice([1, 1, 1, 3])):
        first, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        flipped = bytes([content[first] ^ 1 << rng.randrange(8)]) if first < len(content) else b""
        word, piece = rng.choice(WORDS).encode("latin1"), content[first:end]
        content = rng.choice(
            [
                content[:first] + flipped + content[first + 1 :],
                content[:first],
                content[:first] + word + content[first:],
                content[:first] + word + content[min(end, first + 3) :],
                content[:first] + piece[:40] + content[first:],
                content[:first] + content[first + 2 :],
                content[:first] + content[end:],
            ]
        )
    return content


def test_all_is_well_before_the_damage(whole, tmp_path):
    assert [end_of(folder, tmp_path) for folder in whole] == ["read"] * 5


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=pytest.mark.fault("F27", nightly=n > 0)) for n in range(20)]
)
def test_a_dataset_damaged_at_random_is_read_or_refused_in_one_line(seed, whole, tmp_path, figure):
    rng, ends = random.Random(seed), Counter()
    for number in range(150):
        folder, root = tmp_path / f"in{number}", tmp_path / f"root{number}"
        shutil.copytree(rng.choice(whole), folder)
        victim = rng.choice(sorted(path for path in folder.rglob("*.*") if path.suffix != ".md"))
        victim.write_bytes(damaged(victim.read_bytes(), rng))
        ends[end_of(folder, root)] += 1
        left = [path for place in root.glob("*") for path in place.iterdir()]
        assert [path for path in left if path.name.startswith(".")] == []
        for path in left:
            files.verify(path, {"raw": "RawDataset", "prepared": "PreparedGraph"}[path.parent.name])
        shutil.rmtree(folder)
        shutil.rmtree(root, ignore_errors=True)
    crashes = ends.keys() - {"refused", "read"}
    figure(fuzzed=150, refused=ends["refused"], crashes=len(crashes))
    assert not crashes
    assert min(ends["refused"], ends["read"]) >= 10


def end_of(folder, root):
    try:
        raw = stages.download(str(folder), data_root=root, config=SETTINGS)
        stages.preprocess(raw, data_root=root, config=SETTINGS)
    except CiteflowError as error:
        return (
            "refused"
            if re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", str(error))
            else repr(error)
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"
