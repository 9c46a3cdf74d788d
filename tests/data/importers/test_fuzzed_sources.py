"""Sources that were damaged at random: each is read, or refused in one line, and nothing else.

Run for longer by hand, ten minutes of CPU time for each format, in two processes:
CITEFLOW_FUZZ_S=600 pytest -n 2 --dist load tests/data/importers/test_fuzzed_sources.py
"""

import bz2
import contextlib
import faulthandler
import gzip
import io
import lzma
import os
import random
import re
import resource
import shutil
import tarfile
import time
import zipfile
from collections import Counter

import foreign_formats as foreign
import pytest
from damage import damage

from citeflow.config import Config, DataConfig
from citeflow.data.datasets import download_dataset, read_raw
from citeflow.errors import CiteflowError
from citeflow.graph.inspection import inspect_source

FUZZ_S = float(os.environ.get("CITEFLOW_FUZZ_S", "0"))
LIMIT_BYTES = 1 << 30
LONGEST_S = 60.0
"""CPU time for one source."""
HANG_S = 600.0
"""Wall time for one source, on a machine that does much else."""
FOLDER = "citation folder"
PACKERS = {"gz": gzip, "bz2": bz2, "xz": lzma}
PACKED = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "nested", *PACKERS)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    root = tmp_path_factory.mktemp("intact")
    made = {name: foreign.write(root / str(at), name) for at, name in enumerate(foreign.FORMATS)}
    made[FOLDER] = root / "own"
    made[FOLDER].mkdir()
    foreign.write_native(made[FOLDER], dates=foreign.YEARS)
    return made


@pytest.fixture(scope="module", autouse=True)
def _bounded():
    """Keep a reader that goes wild from the memory of everybody else."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if FUZZ_S:
        resource.setrlimit(resource.RLIMIT_AS, (16 << 30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


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


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage_one(folder, rng):
    victim = rng.choice(files_of(folder))
    victim.write_bytes(damage(victim.read_bytes(), rng))
    return victim


def make_tar(folder, suffix):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=f"w:{suffix}") as file:
        file.add(folder, "data")
    return packed.getvalue()


def make_zip(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return packed.getvalue()


def pack(folder, kind, rng):
    """Pack a folder and damage the archive, what it compresses, or neither."""
    if kind in PACKERS:
        content = rng.choice(files_of(folder)).read_bytes()
        if rng.random() < 0.5:
            content = damage(content, rng)
        content = PACKERS[kind].compress(content)
    elif kind.startswith("tar"):
        _, _, suffix = kind.partition(".")
        content = make_tar(folder, "")
        if rng.random() < 0.3:
            content = damage(content, rng)
        content = PACKERS[suffix].compress(content) if suffix else content
    elif kind == "zip":
        content = make_zip({f"a/{path.name}": path.read_bytes() for path in files_of(folder)})
    else:
        inner = make_tar(folder, rng.choice(["", *PACKERS]))
        content = make_zip({"in/data.tar": damage(inner, rng) if rng.random() < 0.5 else inner})
    path = folder.with_name(f"{folder.name}.{'zip' if kind == 'nested' else kind}")
    path.write_bytes(damage(content, rng) if rng.random() < 0.4 else content)
    return path


@pytest.mark.fault("F27")
@pytest.mark.parametrize("kind", [FOLDER, *foreign.FORMATS, *PACKED])
def test_damaged_source_is_read_or_refused_in_one_line(kind, intact, tmp_path):
    rng = random.Random(kind if not FUZZ_S else None)
    outcomes = Counter()
    started = time.process_time()
    number = 0
    while number < 4 or time.process_time() - started < FUZZ_S:
        source, root = tmp_path / f"in{number}", tmp_path / f"root{number}"
        shutil.copytree(intact[kind if kind in intact else rng.choice(list(intact))], source)
        if kind in PACKED:
            if rng.random() < 0.5:
                damage_one(source, rng)
            given = pack(source, kind, rng)
        else:
            victim = damage_one(source, rng)
            given = victim if rng.random() < 0.3 else source
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        began = time.process_time()
        found = outcome(given, root)
        if number % 10 == 0:
            inspect_or_refuse(given, tmp_path / f"scratch{number}")
        faulthandler.cancel_dump_traceback_later()
        assert time.process_time() - began < LONGEST_S, given
        assert found in ("read", "refused"), f"{given}: {found}"
        outcomes[found] += 1
        for each in (source, root, tmp_path / f"scratch{number}"):
            shutil.rmtree(each, ignore_errors=True)
        if given != source:
            given.unlink(missing_ok=True)
        number += 1
    if FUZZ_S:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(f"{kind}: {number} inputs, {dict(outcomes)}, peak {peak >> 20} MiB")
        assert peak < LIMIT_BYTES
        assert len(outcomes) == 2


def inspect_or_refuse(source, scratch):
    scratch.mkdir()
    with contextlib.suppress(CiteflowError):
        inspect_source(str(source), scratch, DataConfig())
