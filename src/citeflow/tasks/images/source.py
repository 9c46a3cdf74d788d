"""The files of an image dataset on the disk: IDX, or a folder of images for each class.

Legend: N images, H height, W width, C channels.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from citeflow import files
from citeflow.data.raw_store import shown_path
from citeflow.errors import DataError, NotFoundError
from citeflow.tasks.images import pictures
from citeflow.tasks.images.config import MAX_SIDE, ImageDataConfig
from citeflow.tasks.images.idx import IdxFile, open_idx

IDX_SPLITS = {"train": "train", "test": "t10k"}
"""Prefixes of MNIST's file names."""
CLASSES = "classes.txt"
"""Beside IDX files: names of the labels 0, 1, ..., a line each."""

TRAIN, TEST = "train", "test"
SPLITS = (TRAIN, TEST)
SUFFIXES = (".png", ".jpg", ".jpeg")

MAX_CLASSES = 1000

DESCRIPTION = {
    "idx": "train-images-idx3-ubyte and train-labels-idx1-ubyte (or .gz)",
    "classes": "a folder of PNG or JPEG files for each class",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFiles:
    """Images of a RawDataset with their classes; the pixels are read as they are needed."""

    label_N: np.ndarray
    """Index into `classes`, int64."""
    is_test_N: np.ndarray
    """True for the dataset's own test."""
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """Height, width and channels that all images will have."""
    blocks: Callable[[], Iterator[np.ndarray]]
    """Pixels in the order of the labels, uint8 [n, H, W, C]."""
    remarks: tuple[str, ...] = ()


def find_idx(folder: Path) -> tuple[str, ...]:
    """List the IDX files of a dataset, by relative path.

    Raises:
        NotFoundError: there are no training images.
        DataError: labels or images are missing, or a file is there twice.
    """
    found = []
    for split, prefix in IDX_SPLITS.items():
        names = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
        there = [_one_of(folder, name) for name in names]
        if split == TRAIN and there == [None, None]:
            hint = f"expected {' or '.join(DESCRIPTION.values())}"
            raise NotFoundError("no images", folder, hint=hint)
        if None in there and there != [None, None]:
            raise DataError("IDX file is missing", folder / names[there.index(None)])
        found += [name for name in there if name is not None]
    return (*found, *([CLASSES] if (folder / CLASSES).is_file() else []))


def _one_of(folder: Path, name: str) -> str | None:
    present = [each for each in (name, f"{name}.gz") if (folder / each).is_file()]
    if len(present) > 1:
        raise DataError("IDX file is there twice", f"{folder}: {', '.join(present)}")
    return present[0] if present else None


def find_classes(folder: Path) -> tuple[str, ...]:
    """List the images in the folders of at least two classes, by relative path, sorted.

    Raises:
        NotFoundError: there are no such folders, or this is a split of the dataset around it.
    """
    if folder.name in SPLITS and all((folder.parent / name).is_dir() for name in SPLITS):
        raise NotFoundError("only a split of the images", folder, hint="name the folder around it")
    found = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
    ]
    classes = {_split_and_class(name) for name in found}
    hint = f"expected {' or '.join(DESCRIPTION.values())}"
    # Those of an archive's parent folder are deeper than those of the dataset itself.
    if None in classes:
        stray = next(name for name in found if not _split_and_class(name))
        raise NotFoundError("image that is not in the folder of a class", folder / stray, hint=hint)
    if len(classes) < 2:
        raise NotFoundError("no images in folders of classes", folder, hint=hint)
    return tuple(found)


def _split_and_class(name: str) -> tuple[str, str] | None:
    """Return split and class of cat/1.png or test/cat/1.png; None for any other depth."""
    *folders, _ = name.split("/")
    if len(folders) == 2 and folders[0] in SPLITS:
        return folders[0], folders[1]
    return (TRAIN, folders[0]) if len(folders) == 1 and folders[0] not in SPLITS else None


def read(folder: Path, format: str, config: ImageDataConfig) -> ImageFiles:
    """Read labels and sizes of a RawDataset.

    Raises:
        DataError: a file is damaged, or labels and images do not fit each other.
    """
    return _read_idx(folder, config) if format == "idx" else _read_classes(folder, config)


def _read_idx(folder: Path, config: ImageDataConfig) -> ImageFiles:
    parts = []
    for split, prefix in IDX_SPLITS.items():
        image_name = _one_of(folder, f"{prefix}-images-idx3-ubyte")
        label_name = _one_of(folder, f"{prefix}-labels-idx1-ubyte")
        if image_name and label_name:
            images = open_idx(folder / image_name, num_dims=3)
            labels = open_idx(folder / label_name, num_dims=1)
            if images.shape[0] != labels.shape[0]:
                value = f"{image_name}: {images.shape[0]:,}, {label_name}: {labels.shape[0]:,}"
                raise DataError("not as many labels as images", value)
            parts.append((split, images, labels))
    sizes = {images.shape[1:] for _, images, _ in parts}
    shape = _shape(sizes, config, folder, channels=3 if config.color == "rgb" else 1)
    label_N, classes = _name_labels([(labels.path, labels.read()) for *_, labels in parts], folder)
    return ImageFiles(
        label_N=label_N,
        is_test_N=np.concatenate(
            [np.full(images.shape[0], split == TEST) for split, images, _ in parts]
        ),
        classes=classes,
        shape=shape,
        blocks=lambda: _idx_blocks([images for _, images, _ in parts], shape),
    )


def _name_labels(
    labels: list[tuple[Path, np.ndarray]], folder: Path
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return indices of classes, and the classes; labels that no training image has are refused."""
    names = _class_names(folder)
    for path, label_n in labels:
        if names is not None and label_n.max() >= len(names):
            row = int(np.argmax(label_n >= len(names)))
            value = f"{path.name}, row {row}: {label_n[row]} of {len(names)} classes"
            raise DataError("label without a class", value)
    known = np.unique(labels[0][1])
    for path, label_n in labels[1:]:
        unknown = np.setdiff1d(label_n, known)
        if len(unknown):
            value = f"{path.name}: {unknown[0]}"
            raise DataError("label that no training image has", value)
    index = np.searchsorted(known, np.concatenate([label_n for _, label_n in labels]))
    classes = tuple(str(value) if names is None else names[value] for value in known.tolist())
    return index.astype(np.int64), _checked(classes, folder)


def _class_names(folder: Path) -> tuple[str, ...] | None:
    path = folder / CLASSES
    if not path.is_file():
        return None
    try:
        names = tuple(line.strip() for line in path.read_text().rstrip().splitlines())
    except UnicodeDecodeError:
        raise DataError("not a text file", path) from None
    if "" in names or len({*names}) < len(names):
        row = next(i for i, name in enumerate(names) if not name or name in names[:i])
        hint = "a name of its own for each label, a line each"
        raise DataError("class without a name of its own", f"{path}, line {row + 1}", hint=hint)
    return names


def _checked(classes: tuple[str, ...], folder: Path) -> tuple[str, ...]:
    if not 2 <= len(classes) <= MAX_CLASSES:
        hint = f"2 to {MAX_CLASSES}"
        raise DataError("number of classes", f"{folder}: {len(classes)}", hint=hint)
    return classes


def _idx_blocks(parts: list[IdxFile], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for part in parts:
        for block in part.blocks():
            if block.shape[1:] == shape[:2]:
                yield np.repeat(block[..., None], shape[2], axis=3)
            else:
                yield np.stack([pictures.pixels(Image.fromarray(each), shape) for each in block])


def _read_classes(folder: Path, config: ImageDataConfig) -> ImageFiles:
    names = find_classes(folder)
    found = [_split_and_class(name) for name in names]
    places = [each for each in found if each is not None]
    classes = tuple(sorted({name for split, name in places if split == TRAIN}))
    if extra := sorted({name for split, name in places if split == TEST} - {*classes}):
        raise DataError("class that no training image has", folder / TEST / extra[0])
    _checked(classes, folder)
    index = {name: number for number, name in enumerate(classes)}
    first_of_size: dict[tuple[int, ...], str] = {}
    has_colors = False
    for name in names:
        path = folder / name
        with _quiet(), pictures.opened(path, path) as image, pictures.decoding(path):
            first_of_size.setdefault(pictures.size(image), name)
            has_colors = has_colors or image.mode not in ("1", "L", "LA", "I;16", "I")
    if len(first_of_size) > 1 and not config.size:
        shown = [f"{name} {w} x {h}" for (h, w), name in list(first_of_size.items())[:2]]
        hint = "--set data.size=28 resizes all to 28 x 28 pixels"
        raise DataError("images of different sizes", f"{folder}: {', '.join(shown)}", hint=hint)
    is_rgb = config.color == "rgb" or (config.color == "auto" and has_colors)
    shape = _shape(set(first_of_size), config, folder, channels=3 if is_rgb else 1)
    stretched = sum(h != w for h, w in first_of_size) if config.size else 0
    return ImageFiles(
        label_N=np.array([index[name] for _, name in places], np.int64),
        is_test_N=np.array([split == TEST for split, _ in places]),
        classes=tuple(map(shown_path, classes)),
        shape=shape,
        blocks=lambda: _image_blocks([folder / name for name in names], shape),
        remarks=("images that are no squares were stretched to squares",) if stretched else (),
    )


def _shape(
    sizes: Iterable[tuple[int, ...]], config: ImageDataConfig, folder: Path, *, channels: int
) -> tuple[int, int, int]:
    if config.size:
        return config.size, config.size, channels
    (height, width), *others = sorted(sizes)
    if others:
        hint = "--set data.size=28 resizes all to 28 x 28 pixels"
        value = f"{folder}: {width} x {height}, {others[0][1]} x {others[0][0]}"
        raise DataError("images of different sizes", value, hint=hint)
    if max(height, width) > MAX_SIDE:
        hint = f"--set data.size=224 makes them smaller; at most {MAX_SIDE}"
        raise DataError("images are too large", f"{folder}: {width} x {height}", hint=hint)
    return height, width, channels


def _image_blocks(paths: list[Path], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for path in paths:
        with _quiet(), pictures.opened(path, path) as image, pictures.decoding(path):
            pixels = pictures.upright(image, shape)
        yield pixels[None]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Ignore Pillow's warnings in the block, such as those about metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_names(folder: Path, classes: Iterable[str]) -> None:
    """Write the names of the labels beside IDX files."""
    files.write_text(folder / CLASSES, "".join(f"{name}\n" for name in classes))
