"""Measure the import of OpenAlex JSON lines and of a SNAP edge list beside plain loops and pandas.

    python benchmarks/import_speed.py --citations 10000000

Each reader runs in a process of its own; its peak memory is what the system counts for it. The
plain loops do what a script of a page would: ids to row numbers by a dict, citations in an array.
networkx is measured at a tenth of the citations, since it takes several GB for all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

LOOP = """
import array, sys
rows = {{{{}}}}
edges = array.array("i")
row = lambda key: rows.setdefault(key, len(rows))
{0}
print(len(edges) // 2)
"""
JSON_LOOP = """
for line in open({path!r}, "rb"):
    work = loads(line)
    citing = row(work["id"])
    for cited in work["referenced_works"]:
        edges.append(citing); edges.append(row(cited))
"""
READERS = {
    "openalex": {
        "citeflow import": "",
        "loop, json": LOOP.format("from json import loads" + JSON_LOOP),
        "loop, orjson": LOOP.format("from orjson import loads" + JSON_LOOP),
        "pandas.read_json": """
import pandas
count = 0
for part in pandas.read_json({path!r}, lines=True, chunksize=100_000):
    pairs = part[["id", "referenced_works"]].explode("referenced_works").dropna()
    count += len(pairs)
print(count)
""",
    },
    "snap": {
        "citeflow import": "",
        "loop": LOOP.format("""
for line in open({path!r}):
    if line[0] != "#":
        citing, cited = line.split()
        edges.append(row(citing)); edges.append(row(cited))
"""),
        "pandas.read_csv": """
import pandas
print(len(pandas.read_csv({path!r}, sep="\\t", comment="#", header=None)))
""",
        "networkx, a tenth": """
import networkx
print(networkx.read_edgelist({small!r}, create_using=networkx.DiGraph).number_of_edges())
""",
    },
}


def write_openalex(path: Path, num_citations: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for row in range(num_citations // 10):
            cited = rng.integers(0, max(row, 1), 10).tolist()
            work = {
                "id": f"https://openalex.org/W{row}",
                "doi": f"https://doi.org/10.9999/x{row}",
                "title": f"On the citations of paper {row}",
                "publication_year": 1970 + row * 50 // (num_citations // 10),
                "publication_date": f"{1970 + row * 50 // (num_citations // 10)}-03-01",
                "cited_by_count": row % 50,
                "authorships": [{"author": {"id": f"https://openalex.org/A{row % 999}"}}],
                "referenced_works": [f"https://openalex.org/W{each}" for each in cited],
            }
            file.write(json.dumps(work) + "\n")


def write_snap(path: Path, num_citations: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("# Directed graph\n# FromNodeId\tToNodeId\n")
        for _ in range(0, num_citations, 1_000_000):
            size = min(1_000_000, num_citations)
            citing = rng.integers(1, num_citations // 10, size)
            cited = (citing * rng.random(size)).astype(np.int64)
            pairs = zip(citing.tolist(), cited.tolist(), strict=True)
            file.writelines(f"{source}\t{target}\n" for source, target in pairs)


def measure(command: list[str]) -> tuple[float, float, float]:
    """Return seconds, seconds of processor, and peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    assert process.stderr is not None
    if status:
        sys.exit(process.stderr.read().decode()[-800:])
    cpu_s = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, cpu_s, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--citations", type=int, default=10_000_000)
    parser.add_argument("--only", choices=READERS)
    parser.add_argument("--readers", default="", help="only those whose name holds this")
    args = parser.parse_args()
    missing = [name for name in ("orjson", "pandas", "networkx") if not find_spec(name)]
    if missing:
        parser.error(f"what it compares with is not installed: pip install {' '.join(missing)}")
    writers = {"openalex": write_openalex, "snap": write_snap}
    with tempfile.TemporaryDirectory() as work:
        for source in [args.only] if args.only else READERS:
            path = Path(work) / f"{source}.txt"
            writers[source](path, args.citations)
            small = Path(work) / "small.txt"
            if source == "snap":
                write_snap(small, args.citations // 10)
            print(f"{source}: {args.citations:,} citations, {path.stat().st_size / 1e6:,.0f} MB")
            for number, (name, code) in enumerate(READERS[source].items()):
                if args.readers not in name:
                    continue
                command = [sys.executable, "-c", code.format(path=str(path), small=str(small))]
                if not code:
                    out = str(Path(work) / f"out-{source}-{number}")
                    command = [sys.executable, "-m", "citeflow", "import", str(path), "-o", out]
                seconds, cpu_s, peak_mb = measure(command)
                num = args.citations // (10 if "tenth" in name else 1)
                print(
                    f"  {name:<20} {seconds:7.1f} s  {cpu_s:7.1f} CPU s  "
                    f"{num / seconds / 1e6:6.2f} M citations/s  "
                    f"{num / cpu_s / 1e6:6.2f} M per CPU s  "
                    f"{peak_mb:7,.0f} MB",
                    flush=True,
                )
            path.unlink()


if __name__ == "__main__":
    main()
