"""Make PreparedImages of a RawDataset: decode, check, split, and write as arrays.

Legend: N images, H height, W width, C channels.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from citeflow import files
from citeflow.errors import DataError, named_as
from citeflow.report import WARNING, StageCost, stage_costs
from citeflow.tasks.images import source
from citeflow.tasks.images.config import ImageDataConfig
from citeflow.tasks.images.prepared import KIND, SPLITS, ImageFacts
from citeflow.tasks.images.source import ImageFiles
from citeflow.utils.logging import log
from citeflow.utils.progress import log_progress
from citeflow.utils.usage import StageMeter

FORMAT = 1
"""Goes up when the same input makes other files, so that older ones are not taken for the new."""

MIN_PER_CLASS = 3
"""Images of a class that is split: one to train on, one to validate, one to test."""

MIN_TEST = 30
"""With fewer, the figures of a test say next to nothing."""


def prepare(raw: Path, *, data_root: Path, config: ImageDataConfig) -> Path:
    """Make the PreparedImages of a RawDataset, unless they are there already in one piece.

    Returns:
        Their folder, `prepared/<digest of all that they depend on>`.

    Raises:
        DataError: a file is damaged, or the dataset is too small.
    """
    meter = StageMeter()
    manifest = files.read_manifest(raw, "RawDataset")
    key = {
        "kind": KIND,
        "raw": manifest.sha256,
        "data": config.model_dump(),
        "format": FORMAT,
    }
    folder = data_root / "prepared" / files.sha256_of_json(key)[:16]
    if files.is_whole(folder, KIND):
        log("preprocess", "already there", path=folder)
        return folder
    log("preprocess", "reading", path=raw)
    files.verify(raw, "RawDataset")
    given = manifest.facts.get("origin", raw)
    with log_progress("preprocess", "at work"), named_as(raw, given):
        images = source.read(raw, manifest.text("format"), config)
        _write(images, folder, config=config, raw=manifest, meter=meter)
    return folder


def split_rows(
    label_N: np.ndarray, is_test_N: np.ndarray, classes: tuple[str, ...], config: ImageDataConfig
) -> dict[str, np.ndarray]:
    """Hold out a share of each class, at least one image, for validation and for the test.

    Where the dataset has a test of its own, that is the test.

    Raises:
        DataError: a class has too few images.
    """
    has_test = bool(is_test_N.any())
    parts: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for number, name in enumerate(classes):
        row_n = np.flatnonzero((label_N == number) & ~is_test_N)
        if len(row_n) < MIN_PER_CLASS:
            hint = f"{MIN_PER_CLASS} are needed: to train on, to validate, to test"
            raise DataError("class with too few images", f"{name}: {len(row_n)}", hint=hint)
        mixed = np.random.default_rng((config.seed, number)).permutation(row_n)
        held = max(1, round(config.holdout * len(mixed)))
        test = 0 if has_test else held
        parts["valid"].append(mixed[:held])
        parts["test"].append(mixed[held : held + test])
        parts["train"].append(mixed[held + test :])
    if has_test:
        parts["test"] = [np.flatnonzero(is_test_N)]
    return {name: np.sort(np.concatenate(rows)) for name, rows in parts.items()}


class _Statistics:
    """Sums over pixels and digests of images that go by in blocks."""

    def __init__(self, is_train_N: np.ndarray, channels: int) -> None:
        self.is_train_N = is_train_N
        self.sum_C = np.zeros(channels)
        self.square_C = np.zeros(channels)
        self.num = 0
        self.digests: list[bytes] = []

    def observe(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass the blocks on."""
        for block in blocks:
            first = len(self.digests)
            self.digests += [
                hashlib.blake2b(each.tobytes(), digest_size=16).digest() for each in block
            ]
            chosen = block[self.is_train_N[first : first + len(block)]].astype(np.float64) / 255
            self.sum_C += chosen.sum(axis=(0, 1, 2))
            self.square_C += np.square(chosen).sum(axis=(0, 1, 2))
            self.num += chosen[..., 0].size
            yield block

    def mean_and_deviation(self) -> tuple[np.ndarray, np.ndarray]:
        """Return both of each channel; a deviation of 0 becomes 1."""
        mean_C = self.sum_C / self.num
        deviation_C = np.sqrt(np.maximum(self.square_C / self.num - np.square(mean_C), 0))
        return mean_C, np.where(deviation_C > 1e-6, deviation_C, 1)


def _write(
    images: ImageFiles,
    folder: Path,
    *,
    config: ImageDataConfig,
    raw: files.Manifest,
    meter: StageMeter,
) -> None:
    rows = split_rows(images.label_N, images.is_test_N, images.classes, config)
    num_images = len(images.label_N)
    is_train_N = np.zeros(num_images, bool)
    is_train_N[rows["train"]] = True
    seen = _Statistics(is_train_N, images.shape[2])
    with files.new_directory(folder) as work:
        blocks = seen.observe(images.blocks())
        files.save_blocks(work / "images.npy", blocks, (num_images, *images.shape), np.uint8)
        files.save_array(work / "labels.npy", images.label_N)
        for name, row_n in rows.items():
            files.save_array(work / f"{name}.npy", row_n)
        facts = _facts(images, rows, seen, str(raw.facts.get("dataset", "")))
        stages = {**stage_costs(raw), "preprocess": StageCost(**meter.cost())}
        costs: JsonValue = {
            name: cost.model_dump(exclude_none=True) for name, cost in stages.items()
        }
        files.write_manifest(
            work,
            KIND,
            inputs={"RawDataset": raw.sha256, "data": config.model_dump()},
            facts={**facts.model_dump(mode="json"), "stages": costs},
        )
    for text in facts.remarks:
        log("preprocess", text)
    log(
        "preprocess",
        "split",
        classes=len(images.classes),
        train=facts.num_train,
        valid=facts.num_valid,
        test=facts.num_test,
    )


def _facts(
    images: ImageFiles, rows: dict[str, np.ndarray], seen: _Statistics, dataset: str
) -> ImageFacts:
    mean_C, deviation_C = seen.mean_and_deviation()
    known = {seen.digests[row] for row in rows["train"].tolist()}
    repeated = sum(seen.digests[row] in known for row in rows["test"].tolist())
    remarks = list(images.remarks)
    if repeated:
        remarks.append(f"{repeated:,} test images are training images too, pixel by pixel")
    if len(rows["test"]) < MIN_TEST:
        remarks.append(
            f"{WARNING}: the test has {len(rows['test'])} images, too few for a figure that says "
            "anything"
        )
    height, width, channels = images.shape
    return ImageFacts(
        dataset=dataset,
        split="own" if images.is_test_N.any() else "random",
        num_images=len(images.label_N),
        num_train=len(rows["train"]),
        num_valid=len(rows["valid"]),
        num_test=len(rows["test"]),
        height=height,
        width=width,
        channels=channels,
        classes=images.classes,
        images_per_class=tuple(np.bincount(images.label_N, minlength=len(images.classes)).tolist()),
        mean=tuple(mean_C.tolist()),
        deviation=tuple(deviation_C.tolist()),
        test_in_train=repeated,
        remarks=tuple(remarks),
    )
