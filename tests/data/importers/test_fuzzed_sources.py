"""Sources that were damaged at random: each is read, or refused in one line, and nothing else."""

import contextlib
import random
import re
import shutil
import time
from collections import Counter

import foreign_formats as foreign
import pytest
from damage import damage

from citeflow.config import Config, DataConfig
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.errors import CiteflowError
from citeflow.graph.inspection import inspect_source

LONGEST_S = 120.0


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    root = tmp_path_factory.mktemp("intact")
    return [foreign.write(root / str(at), name) for at, name in enumerate(foreign.FORMATS)]


def outcome(source, root):
    try:
        raw = download_dataset(str(source), data_root=root, config=Config())
        read_raw(raw, DataConfig(text_dim=4, unknown="drop"))
    except CiteflowError as error:
        is_one_line = re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", str(error))
        return "refused" if is_one_line else repr(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "read"


SEEDS = [pytest.param(n, marks=pytest.mark.fault("F27", nightly=n > 0)) for n in range(20)]


@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_source_is_imported_or_refused_in_one_line(seed, intact, tmp_path):
    rng = random.Random(seed)
    outcomes = Counter()
    for number in range(600 if seed else 80):
        source, root = tmp_path / f"in{number}", tmp_path / f"root{number}"
        shutil.copytree(rng.choice(intact), source)
        victim = rng.choice(sorted(path for path in source.rglob("*") if path.is_file()))
        victim.write_bytes(damage(victim.read_bytes(), rng))
        start = time.monotonic()
        found = outcome(victim if rng.random() < 0.3 else source, root)
        outcomes[found] += 1
        assert found in ("read", "refused"), f"{victim.name}: {found}"
        assert time.monotonic() - start < LONGEST_S, victim.name
        if number % 10 == 0:
            inspect_or_refuse(source, tmp_path / f"scratch{number}")
        for folder in (source, root):
            shutil.rmtree(folder, ignore_errors=True)
    assert min(outcomes.values()) >= 8


def inspect_or_refuse(source, scratch):
    scratch.mkdir()
    with contextlib.suppress(CiteflowError):
        inspect_source(str(source), scratch, DataConfig())
