"""The verb `download`: turns the name of a dataset into a RawDataset, a directory under `raw/` named by its content.

A citation folder is named by the digests of its files, wherever it came from, so the same content is stored once. The
synthetic graph is named by its settings, which decide its content, so that it need not be made to be found. Under
`raw/.downloads/` a note per URL says what came of it, so that nothing is downloaded twice; to have a URL looked at
again, delete its note.
"""

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from citeflow import files
from citeflow.config import Config, DataConfig, SyntheticConfig
from citeflow.data import archive, ogb
from citeflow.data.citation_folder import read_folder
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.download import fetch, local_path
from citeflow.data.features import FEATURES
from citeflow.data.tables import SUFFIXES
from citeflow.errors import ConfigError, CorruptError, DataError, NotFoundError, UnavailableError
from citeflow.utils.logging import log, redact_url

KIND = "RawDataset"
SYNTHETIC = "synthetic"
OGB = "ogbl-citation2"
NAMED_DATASETS = (SYNTHETIC, OGB)

OGB_URL = "http://snap.stanford.edu/ogb/data/linkproppred/citation-v2.zip"
"""Where OGB keeps it; CITEFLOW_OGB_URL names a mirror, CITEFLOW_OGB_SHA256 the digest that the archive must have."""

SYNTHETIC_VERSION = 2
"""To be raised when the same settings give another graph than before."""

LONGEST_WAIT_MIN = 360
"""How long a download waits for another process that is at work on the same URL."""

TELL_EVERY_S = 60.0

TABLES = ("papers", "citations")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """The files of a dataset that citeflow knows; others beside them are left alone."""

    form: str
    folder: Path
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Download:
    dataset: str
    url: str
    sha256: str | None = None
    form: str | None = None


def download_dataset(dataset: str, *, data_root: Path, config: Config) -> Path:
    """Bring a dataset into `data_root`, or find that it is there already; its tables are not parsed yet.

    Args:
        dataset: `synthetic`, `ogbl-citation2`, a citation folder, an archive of one (.zip, .tar, .tar.gz), or the
            URL of an archive, to which `#sha256=...` may be added; `file://` may also name a folder.
        data_root: the result is `raw/<16 hex digits>` below it.
        config: only the section `synthetic` is used.

    Raises:
        ConfigError: what stands behind `#` in a URL is no digest, or is that of a folder.
        NotFoundError: there is no such dataset, or a table is missing in it.
        DataError: the dataset is damaged or ambiguous, or has another digest than expected.
        UnavailableError: a server does not deliver.
    """
    root = data_root / "raw"
    if dataset == SYNTHETIC:
        return _make_synthetic(root, config.synthetic)
    if dataset == OGB:
        return _from_url(root, _ogb_download())
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:/", dataset):
        download = _download_of(dataset)
        folder = _folder_of(download)
        return _from_folder(root, folder) if folder else _from_url(root, download)
    path = Path(dataset).expanduser()
    if dataset and path.is_dir():
        return _from_folder(root, path)
    if path.is_file():
        return _from_archive(root, path, {"dataset": _stem(path.name)})
    raise _unknown(dataset)


def read_raw(raw: Path, config: DataConfig) -> CitationGraph:
    """Read the papers and citations of a RawDataset, after a check of its digests.

    Raises:
        NotFoundError: there is none.
        CorruptError: a file was changed since it was stored.
        DataError: something in the tables is wrong.
    """
    manifest = files.verify(raw, KIND)
    return ogb.read_ogb(raw) if manifest.facts["format"] == "ogb" else read_folder(raw, config)


def _make_synthetic(root: Path, config: SyntheticConfig) -> Path:
    settings = {**config.model_dump(), "version": SYNTHETIC_VERSION}
    path = root / files.sha256_of_json({SYNTHETIC: settings})[:16]
    if not _is_whole(path):
        from citeflow.data.synthetic import write_synthetic

        log("download", "making", dataset=SYNTHETIC, papers=config.num_papers)
        with files.new_directory(path) as work:
            write_synthetic(work, config)
            facts = {"dataset": SYNTHETIC, "format": "folder"}
            files.write_manifest(work, KIND, inputs={SYNTHETIC: settings}, facts=facts)
    return path


def _ogb_download() -> _Download:
    url = os.environ.get("CITEFLOW_OGB_URL") or OGB_URL
    sha256 = os.environ.get("CITEFLOW_OGB_SHA256", "").lower() or None
    return _Download(dataset=OGB, url=url, sha256=sha256, form="ogb")


def _download_of(text: str) -> _Download:
    url, _, fragment = text.partition("#")
    found = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment.lower())
    if fragment and not found:
        raise ConfigError(
            "not a digest behind a URL", f"#{fragment}", hint="#sha256= and 64 hex digits"
        )
    return _Download(dataset=_stem(_file_name(url)), url=url, sha256=found[1] if found else None)


def _folder_of(download: _Download) -> Path | None:
    """The folder that a file URL names, if it does."""
    folder = local_path(download.url) if download.url.lower().startswith("file:") else None
    if folder is None or not folder.is_dir():
        return None
    if download.sha256:
        raise ConfigError("a folder has no sha256", folder, hint="leave it out, or name an archive")
    return folder


def _from_folder(root: Path, folder: Path) -> Path:
    return _store(
        root, _require_content(folder), files.copy_file, {"dataset": folder.resolve().name}
    )


def _file_name(url: str) -> str:
    name = PurePosixPath(redact_url(url)).name
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")[-100:] or "archive"


def _stem(name: str) -> str:
    return re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", name, flags=re.IGNORECASE) or name


def _from_url(root: Path, download: _Download) -> Path:
    place = root / ".downloads" / files.sha256_of_json(download.url)[:16]
    with _alone(place / "download.lock"):
        return _fetch_and_unpack(root, place, download)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with contextlib.ExitStack() as held:
        for minutes in range(LONGEST_WAIT_MIN + 1):
            try:
                held.enter_context(files.exclusive(lock, wait_s=TELL_EVERY_S))
                break
            except UnavailableError:
                if minutes == LONGEST_WAIT_MIN:
                    raise
                log("download", "waiting for another process", minutes=minutes + 1, lock=lock)
        yield


def _fetch_and_unpack(root: Path, place: Path, download: _Download) -> Path:
    note = place / "note.json"
    is_local = download.url.lower().startswith("file:")
    if not is_local and (known := _noted(root, note, download.sha256)):
        log("download", "already here", url=redact_url(download.url), raw=known.name, note=note)
        return known
    file = place / _file_name(download.url)
    digest = fetch(download.url, file, sha256=download.sha256)
    raw = _noted(root, note, digest) or _unpack_download(root, file, download, digest)
    files.write_json(note, {"url": redact_url(download.url), "sha256": digest, "raw": raw.name})
    file.unlink()
    return raw


def _noted(root: Path, note: Path, sha256: str | None) -> Path | None:
    """What came of a URL earlier, if it is still there and is what is wanted now."""
    try:
        known = files.read_json(note)
        path, found = root / Path(known["raw"]).name, known["sha256"]
    except (NotFoundError, CorruptError, KeyError, TypeError):
        return None
    return path if sha256 in (None, found) and _is_whole(path) else None


def _unpack_download(root: Path, file: Path, download: _Download, digest: str) -> Path:
    facts = {
        "dataset": download.dataset,
        "url": redact_url(download.url),
        "archive_sha256": digest,
    }
    try:
        return _from_archive(root, file, facts, form=download.form)
    except (DataError, NotFoundError):
        file.unlink()
        raise


def _from_archive(
    root: Path, file: Path, facts: dict[str, Any], *, form: str | None = None
) -> Path:
    log("download", "unpacking", file=file.name, bytes=file.stat().st_size)
    with files.scratch_directory(root) as work:
        archive.extract(file, work)
        found = [content for folder in _folders(work) if (content := _content_of(folder))]
        if len(found) != 1:
            raise DataError(
                f"archive with {len(found)} datasets",
                file.name,
                hint=f"one is expected: {_wanted()}",
            )
        if form not in (None, found[0].form):
            raise DataError(f"archive is not in the layout of {facts['dataset']}", file.name)
        return _store(root, found[0], files.move_file, facts)


def _folders(work: Path) -> list[Path]:
    return [
        work,
        *(path for path in sorted(work.iterdir()) if path.is_dir() and path.name != "__MACOSX"),
    ]


def _store(
    root: Path, content: _Content, take: Callable[[Path, Path], None], facts: dict[str, Any]
) -> Path:
    digests = {name: files.sha256_of_file(content.folder / name) for name in content.names}
    path = root / files.sha256_of_json({"format": content.form, "files": digests})[:16]
    if _is_whole(path):
        log("download", "already here", raw=path.name)
        return path
    with files.new_directory(path) as work:
        for name in content.names:
            take(content.folder / name, work / name)
        files.write_manifest(work, KIND, inputs={}, facts={**facts, "format": content.form})
    return path


def _require_content(folder: Path) -> _Content:
    content = _content_of(folder)
    if content is None:
        missing = [f"no {name} table" for name in TABLES if not _tables(folder, name)]
        raise NotFoundError(" and ".join(missing), folder, hint=_wanted())
    return content


def _content_of(folder: Path) -> _Content | None:
    if all((folder / name).is_file() for name in ogb.REQUIRED):
        return _Content(
            form="ogb", folder=folder, names=(*ogb.REQUIRED, *_present(folder, ogb.OPTIONAL))
        )
    found = [_tables(folder, name) for name in TABLES]
    if not all(found):
        return None
    for names in found:
        if len(names) > 1:
            raise DataError(
                f"{folder} has the same table twice", ", ".join(names), hint="keep one of them"
            )
    names = tuple(name for names in found for name in names)
    return _Content(form="folder", folder=folder, names=(*names, *_present(folder, (FEATURES,))))


def _tables(folder: Path, name: str) -> tuple[str, ...]:
    return _present(folder, tuple(name + suffix for suffix in SUFFIXES))


def _present(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if (folder / name).is_file())


def _wanted() -> str:
    return f"a citation folder holds papers and citations, each as {', '.join(SUFFIXES)}, and may hold {FEATURES}"


def _is_whole(path: Path) -> bool:
    try:
        files.read_manifest(path, KIND)
    except (NotFoundError, CorruptError):
        return False
    return True


def _unknown(dataset: str) -> NotFoundError:
    close = difflib.get_close_matches(dataset.lower(), NAMED_DATASETS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return NotFoundError(
        "no such dataset",
        dataset or "''",
        hint=f"{hint}it is {SYNTHETIC}, {OGB}, a citation folder, or an archive or URL",
    )
