"""Image datasets: by name, by path or URL, and how they get below the data root."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import JsonValue

from citeflow import files
from citeflow.data import download
from citeflow.data.raw_store import RawFormat, RawStore, Source, archive_name, shown_path
from citeflow.errors import INSTALL, CorruptError, MissingPackageError, NotFoundError, named_as
from citeflow.tasks.images import garments, source
from citeflow.tasks.images.config import ImagesConfig
from citeflow.tasks.images.idx import write_idx
from citeflow.utils.logging import log

GARMENTS = "garments"
DIGITS = "digits"

FORMATS = {
    "idx": RawFormat(find_files=source.find_idx, description=source.DESCRIPTION["idx"]),
    "classes": RawFormat(find_files=source.find_classes, description=source.DESCRIPTION["classes"]),
}
"""File formats, by the name that a manifest has for them."""

_ARCHIVE = r"\.(zip|tgz|tar(\.(gz|bz2|xz))?)$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A dataset of four IDX files below a URL."""

    url: str
    """Folder on the server; a variable of the environment may name a mirror."""
    variable: str
    sha256: Mapping[str, str]
    """Digests of its files, by name."""
    classes: tuple[str, ...] = ()
    """Names of the labels, where they are no digits."""


PUBLISHED = {
    "fashion-mnist": Published(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        variable="CITEFLOW_FASHION_MNIST_URL",
        sha256={
            "train-images-idx3-ubyte.gz": (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"
            ),
            "train-labels-idx1-ubyte.gz": (
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"
            ),
        },
        classes=garments.CLASSES,
    ),
    "mnist": Published(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        variable="CITEFLOW_MNIST_URL",
        sha256={
            "train-images-idx3-ubyte.gz": (
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"
            ),
            "train-labels-idx1-ubyte.gz": (
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"
            ),
        },
    ),
}
"""Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", 2017; LeCun, Cortes and Burges, "The MNIST database of handwritten digits", 1998."""

DATASETS = (GARMENTS, DIGITS, *PUBLISHED)


def download_dataset(dataset: str, *, data_root: Path, config: ImagesConfig) -> Path:
    """Bring images below the data root, unless they are there already.

    Args:
        dataset: a name of DATASETS; a folder with IDX files, or with a folder of images for each
            class; an archive of either; the URL of an archive, or of a folder (with / at its end)
            that has MNIST's four files.
        data_root: the result is `raw/<16 hex digits>` below it.
        config: settings of generated datasets.

    Raises:
        NotFoundError: there is no such dataset.
        DataError: a file has another digest than published, or is damaged.
        UnavailableError: a server does not deliver.
    """
    store = RawStore(data_root, FORMATS)
    if dataset == GARMENTS:
        drawn: dict[str, JsonValue] = {**config.generated.model_dump(), "version": garments.VERSION}
        return store.generate(GARMENTS, drawn, lambda folder: _write_garments(folder, config))
    if dataset == DIGITS:
        return store.generate(DIGITS, {}, _write_digits)
    if dataset in PUBLISHED:
        return _download_published(store, dataset, data_root)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:/", dataset):
        return _download_url(store, dataset, data_root)
    path = Path(dataset).expanduser()
    if dataset and path.is_dir():
        with named_as(path.absolute(), path):
            return store.add_folder(path)
    if path.is_file():
        return store.add_archive(path, {"dataset": shown_path(_stem(path.name))})
    hint = f"it is {', '.join(DATASETS)}, a folder, an archive or a URL"
    raise NotFoundError("no such dataset", dataset or "''", hint=hint)


def _download_published(store: RawStore, name: str, data_root: Path) -> Path:
    published = PUBLISHED[name]
    url = os.environ.get(published.variable) or published.url
    return _download_files(
        store, name, url, sha256=published.sha256, classes=published.classes, data_root=data_root
    )


def _download_url(store: RawStore, url: str, data_root: Path) -> Path:
    folder = download.local_path(url)
    if folder is not None and folder.is_dir():
        return store.add_folder(folder)
    if url.endswith("/"):
        names = dict.fromkeys(PUBLISHED["mnist"].sha256)
        return _download_files(store, archive_name(url), url, sha256=names, data_root=data_root)
    name, _, fragment = url.partition("#")
    sha256 = fragment.lower().removeprefix("sha256=") or None
    return store.add_url(Source(dataset=_stem(archive_name(name)), url=name, sha256=sha256))


def _download_files(
    store: RawStore,
    name: str,
    url: str,
    *,
    sha256: Mapping[str, str | None],
    data_root: Path,
    classes: tuple[str, ...] = (),
) -> Path:
    """Download files into a folder that the store takes over; a repeated call finds the result."""
    work = data_root / "raw" / ".downloads" / files.sha256_of_json([url, *sha256.values()])[:16]
    note = work / "note.json"
    with files.exclusive(work / "download.lock", wait_s=3600):
        if known := _noted(note, data_root):
            log("download", "already here", dataset=name, raw=known.name)
            return known
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, digest in sha256.items():
            log("download", "fetching", file=file)
            download.fetch(f"{url.removesuffix('/')}/{file}", folder / file, sha256=digest)
        if classes:
            source.write_names(folder, classes)
        with named_as(folder, url):
            raw = store.add_folder(folder)
        files.write_json(note, {"raw": raw.name})
        files.delete_directory(folder)
        return raw


def _noted(note: Path, data_root: Path) -> Path | None:
    try:
        values = files.read_json(note)
        raw = (
            data_root / "raw" / Path(str(values["raw"])).name if isinstance(values, dict) else None
        )
        if raw is not None:
            files.read_manifest(raw, "RawDataset")
    except (NotFoundError, CorruptError):
        return None
    return raw


def _write_garments(folder: Path, config: ImagesConfig) -> dict[str, JsonValue]:
    settings = config.generated
    splits = {"train": settings.num_images, "t10k": max(1, settings.num_images // 6)}
    for number, (prefix, num) in enumerate(splits.items()):
        images, labels = garments.draw(num, seed=(settings.seed, number))
        _write_pair(folder, prefix, images, labels)
    source.write_names(folder, garments.CLASSES)
    return {"format": "idx"}


def _write_digits(folder: Path) -> dict[str, JsonValue]:
    """Write scikit-learn's 1,797 digits of 8 x 8 pixels, which have no test of their own."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingPackageError("scikit-learn is not installed", hint=INSTALL) from None
    digits = load_digits()
    images = np.asarray(digits.images) * 255 / 16
    _write_pair(folder, "train", images.round(), np.asarray(digits.target))
    return {"format": "idx"}


def _write_pair(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray) -> None:
    write_idx(folder / f"{prefix}-images-idx3-ubyte", images)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)


def _stem(name: str) -> str:
    return re.sub(_ARCHIVE, "", name, flags=re.IGNORECASE) or name
