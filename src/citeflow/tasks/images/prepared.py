"""PreparedImages: a folder of arrays that workers map into memory and share.

Legend: N images, H height, W width, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ConfigDict

from citeflow import files
from citeflow.errors import CorruptError
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "PreparedImages"
REPAIR = "delete the folder and run preprocess again"
SPLITS = ("train", "valid", "test")


class ImageFacts(Record):
    """Facts in the manifest: counts, and how the images were split."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    split: Literal["own", "random"]
    """The test of the dataset itself, or a share of each class."""
    num_images: int
    num_train: int
    num_valid: int
    num_test: int
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]
    images_per_class: tuple[int, ...]
    mean: tuple[float, ...]
    """Of each channel over the training images, from 0 to 1."""
    deviation: tuple[float, ...]
    test_in_train: int
    """Test images that are also training images, pixel by pixel."""
    remarks: tuple[str, ...] = ()
    """What looks wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedImages:
    """Images ready for training; all arrays are read-only maps of files."""

    path: Path
    manifest: files.Manifest
    facts: ImageFacts

    image_NHWC: np.ndarray
    """Pixels, uint8."""
    label_N: np.ndarray
    """Index of the class, int64."""
    rows: dict[str, np.ndarray]
    """Rows of each of SPLITS, int64, ascending."""

    @classmethod
    def open(cls, folder: Path) -> "PreparedImages":
        """Map the arrays of a folder.

        Raises:
            NotFoundError: there are none.
            CorruptError: a file is missing, or is not what preprocess writes.
        """
        manifest = files.read_manifest(folder, KIND)
        facts = records.load(
            ImageFacts, manifest.facts, name=str(folder), error=CorruptError, hint=REPAIR
        )
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("images", "labels", *SPLITS)
            }
        except (OSError, ValueError):
            raise CorruptError("not what preprocess writes", folder, hint=REPAIR) from None
        return cls(
            path=folder,
            manifest=manifest,
            facts=facts,
            image_NHWC=arrays["images"],
            label_N=np.asarray(arrays["labels"]),
            rows={name: np.asarray(arrays[name]) for name in SPLITS},
        )
