"""Arrays of a directory as read-only maps of its files.

Legend: P held-out citations, K candidates.
"""

from pathlib import Path

import numpy as np

from citeflow.data.citation_graph import HeldOut
from citeflow.data.features import NOT_AN_ARRAY
from citeflow.errors import CorruptError
from citeflow.graph.csr import Csr


def map_array(path: Path, name: str) -> np.ndarray:
    """Map `name`.npy.

    Raises:
        CorruptError: it is no array of numbers.
    """
    file = path / f"{name}.npy"
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (*NOT_AN_ARRAY, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's failure, and not the file's
        raise CorruptError(
            "not an array of numbers", file, hint="delete the folder and run the step again"
        ) from None
    return array


def map_csr(path: Path, name: str) -> Csr:
    """Map the two arrays of sparse rows; errors as for `map_array`."""
    return Csr(map_array(path, f"{name}_ptr"), map_array(path, f"{name}_index"))


def map_held_out(path: Path, part: str) -> HeldOut:
    """Map the three arrays of held-out citations; errors as for `map_array`."""
    source_P, target_P = map_array(path, f"{part}_source"), map_array(path, f"{part}_target")
    return HeldOut(
        source_P=source_P, target_P=target_P, negative_PK=map_array(path, f"{part}_negative")
    )
