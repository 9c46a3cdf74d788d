"""Makes a small dataset in exactly the layout of OGB's citation-v2.zip."""

import gzip
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

PAPERS, FEATURES, CITATIONS, HELD_OUT, NEGATIVES = 60, 8, 300, 7, 20

Arrays = dict[str, np.ndarray]


def make_arrays(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {
        "edge": rng.integers(0, PAPERS, (CITATIONS, 2)),
        "node-feat": rng.standard_normal((PAPERS, FEATURES)).round(6),
        "node_year": rng.integers(1950, 2020, (PAPERS, 1)),
        "num-node-list": np.array([[PAPERS]]),
        "num-edge-list": np.array([[CITATIONS]]),
    }


def make_split(arrays: Arrays, seed: int = 1) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)

    def held_out() -> dict[str, np.ndarray]:
        return {
            "source_node": rng.integers(0, PAPERS, HELD_OUT),
            "target_node": rng.integers(0, PAPERS, HELD_OUT),
            "target_node_neg": rng.integers(0, PAPERS, (HELD_OUT, NEGATIVES)),
        }

    source_E, target_E = arrays["edge"][rng.permutation(CITATIONS)].T
    return {
        "train": {"source_node": source_E, "target_node": target_E},
        "valid": held_out(),
        "test": held_out(),
    }


def write_table(path: Path, array: np.ndarray) -> None:
    lines = "".join(",".join(map(str, row)) + "\n" for row in array.tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(lines.encode(), mtime=0))


def write_ogb(folder: Path, **save_options: Any) -> tuple[Arrays, dict[str, dict[str, Any]]]:
    """Write raw/ and split/time/ as OGB packs them, and return what was written."""
    import torch

    arrays = make_arrays()
    split = make_split(arrays)
    for name, array in arrays.items():
        write_table(folder / "raw" / f"{name}.csv.gz", array)
    (folder / "split" / "time").mkdir(parents=True)
    for name, part in split.items():
        torch.save(part, folder / "split" / "time" / f"{name}.pt", **save_options)
    (folder / "mapping").mkdir()
    (folder / "mapping" / "README.md").write_text("Row numbers and paper ids.\n")
    (folder / "RELEASE_v1.txt").write_text("")
    return arrays, split


def zip_folder(folder: Path, archive: Path) -> Path:
    """Pack a folder under its own name, with entries for the folders too, as zip does."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in [folder, *sorted(folder.rglob("*"))]:
            file.write(path, path.relative_to(folder.parent))
    return archive
