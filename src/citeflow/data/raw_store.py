"""The store of raw datasets: directories under `raw/`, each named by the digest of its content.

A dataset made of files is named by their digests, wherever they came from, so the same content is
stored once. A generated one is named by its settings, so it is found without being generated again.
Under `raw/.downloads/` a note per URL records which dataset came from it, so that nothing is
downloaded twice; delete the note to have the URL downloaded again.
"""

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from citeflow import files
from citeflow.data import archive, download
from citeflow.data.locks import exclusive
from citeflow.errors import CorruptError, DataError, NotFoundError, named_as
from citeflow.utils import records
from citeflow.utils.logging import log, redact_url
from citeflow.utils.records import Record
from citeflow.utils.usage import StageMeter

KIND = "RawDataset"


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFormat:
    """A layout of files on the disk."""

    find_files: Callable[[Path], tuple[str, ...]]
    """Lists the files that make up the dataset in a folder, by relative path; raises NotFoundError
    if the folder is not in this format, and DataError if it is ambiguous."""

    description: str
    """The files that it expects, for messages."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """An archive under a URL."""

    dataset: str
    """Name of the dataset, for the report."""

    url: str
    sha256: str | None = None
    """Digest that the archive must have, in lower case."""

    format: str | None = None
    """Format that it must hold."""


class _Note(Record):
    """Result of an earlier download."""

    url: str
    sha256: str
    """Digest of the archive."""

    raw: str
    """Name of the directory that was made of it."""


Converter = Callable[["RawStore", Path, str, str], Path | None]
"""Brings a file or a folder of another format, with its name and its origin as a user knows it,
into the store with `generate`; None where it is no such thing."""


class RawStore:
    """The directory `raw/` of a data root, during one run of the stage `download`."""

    def __init__(
        self, data_root: Path, formats: Mapping[str, RawFormat], convert: Converter | None = None
    ) -> None:
        """Open the store; nothing is written yet.

        Args:
            data_root: where all data lies.
            formats: those that are looked for in a folder or an archive, the first match counts.
            convert: is offered each file, and the unpacked content of each archive, before that.
        """
        self._root = data_root / "raw"
        self._formats = formats
        self._convert = convert
        self._meter = StageMeter()

    def generate(
        self,
        dataset: str,
        settings: Mapping[str, JsonValue],
        write: Callable[[Path], Mapping[str, JsonValue] | None],
        facts: Mapping[str, JsonValue] | None = None,
    ) -> Path:
        """Return the dataset of these settings, written by `write` if it is not stored yet.

        Facts, and those that `write` returns, are noted in the manifest.
        """
        inputs: dict[str, JsonValue] = {dataset: dict(settings)}
        path = self._root / files.sha256_of_json(inputs)[:16]
        if _is_complete(path):
            _note_origin(path, facts or {})
            return path
        log("download", "generating", dataset=dataset)
        with files.new_directory(path) as work:
            found = {**(facts or {}), **(write(work) or {})}
            self._write_manifest(work, {"dataset": dataset, "format": "folder", **found}, inputs)
        return path

    def add_folder(self, folder: Path) -> Path:
        """Copy a dataset from a folder.

        Raises:
            NotFoundError: there is none in it.
            DataError: it is ambiguous.
        """
        name, names = self._find_format(folder)
        facts = {
            "dataset": shown_path(folder.resolve().name),
            "format": name,
            "origin": shown_path(folder),
        }
        return self._store(folder, names, files.copy_file, facts)

    def add_archive(
        self, file: Path, facts: Mapping[str, JsonValue], *, format: str | None = None
    ) -> Path:
        """Unpack the dataset in an archive, at its top or in one of its folders.

        Args:
            file: .zip or .tar, which may be compressed.
            facts: written into the manifest; `dataset` is among them.
            format: the one that the dataset must be in.

        Raises:
            DataError: the archive is damaged or hostile, or does not hold one dataset.
        """
        dataset = str(facts["dataset"])
        given = str(facts.get("origin", shown_path(file)))
        convert = self._convert if format is None else None
        if convert and (raw := convert(self, file, dataset, given)):
            return raw
        log("download", "unpacking", file=file.name, bytes=file.stat().st_size)
        # On the file system of the store, so that the files are moved out of it, not copied.
        with files.scratch_directory(self._root) as work, named_as(work, given):
            archive.extract(file, work)
            if convert and (raw := convert(self, work, dataset, given)):
                return raw
            folders = [work, *(path for path in sorted(work.rglob("*")) if path.is_dir())]
            datasets = []
            for folder in folders:
                # Resource forks, which macOS packs beside the files.
                if "__MACOSX" not in folder.relative_to(work).parts:
                    with contextlib.suppress(NotFoundError):
                        datasets.append((folder, *self._find_format(folder)))
            if len(datasets) != 1:
                raise _not_one(file, work, [folder for folder, *_ in datasets], self._formats)
            folder, name, names = datasets[0]
            if format not in (None, name):
                raise DataError(f"archive is not in the layout of {facts['dataset']}", file.name)
            origin = shown_path(Path(given) / folder.relative_to(work))
            facts = {**facts, "origin": origin, "format": name}
            return self._store(folder, names, files.move_file, facts)

    def add_url(self, source: Source) -> Path:
        """Download and unpack an archive, unless that was done before.

        Of several processes that do so at the same time one downloads and the others wait.

        Raises:
            NotFoundError: there is nothing under this URL.
            UnavailableError: the server does not deliver, or another process takes too long.
            DataError: the archive has another digest, is damaged or hostile, or holds no dataset.
        """
        work = self._root / ".downloads" / files.sha256_of_json(source.url)[:16]
        with exclusive(work / "download.lock", stage="download"):
            return self._download(source, work)

    def _download(self, source: Source, work: Path) -> Path:
        note = work / "note.json"
        url = redact_url(source.url)
        is_local = source.url.lower().startswith("file:")
        # A local file is cheap to read, and more likely to be another one by now.
        if not is_local and (known := self._find_noted(note, source.sha256)):
            log("download", "already here", url=url, raw=known.name, note=note)
            return known
        file = work / archive_name(source.url)
        digest = download.fetch(source.url, file, sha256=source.sha256)
        raw = self._find_noted(note, digest)
        if raw is None:
            facts = {
                "dataset": source.dataset,
                "url": url,
                "archive_sha256": digest,
                "origin": url,
            }
            try:
                with named_as(file, url):
                    raw = self.add_archive(file, facts, format=source.format)
            except (DataError, NotFoundError):
                file.unlink()  # the next attempt must download another one
                raise
        files.write_json(note, _Note(url=url, sha256=digest, raw=raw.name).model_dump())
        file.unlink()
        return raw

    def _find_noted(self, note: Path, sha256: str | None) -> Path | None:
        """Return what came of a URL earlier, if it still exists and has the digest wanted now."""
        try:
            known = records.load(_Note, files.read_json(note), error=CorruptError)
        except (NotFoundError, CorruptError):
            return None
        path = self._root / Path(known.raw).name
        return path if sha256 in (None, known.sha256) and _is_complete(path) else None

    def _find_format(self, folder: Path) -> tuple[str, tuple[str, ...]]:
        """Return the format of the dataset in a folder, and its files."""
        missing = NotFoundError("no dataset", folder)
        for name, format in self._formats.items():
            try:
                return name, format.find_files(folder)
            except NotFoundError as error:
                missing = error
        raise missing  # the message of the last format, which is the one that users bring

    def _store(
        self,
        folder: Path,
        names: tuple[str, ...],
        take: Callable[[Path, Path], None],
        facts: Mapping[str, JsonValue],
    ) -> Path:
        digests = {name: files.sha256_of_file(folder / name) for name in names}
        digest = files.sha256_of_json({"format": facts["format"], "files": digests})
        path = self._root / digest[:16]
        if _is_complete(path):
            log("download", "already here", raw=path.name)
            _note_origin(path, facts)
            return path
        with files.new_directory(path) as work:
            for name in names:
                take(folder / name, work / name)
            self._write_manifest(work, facts, {})
        return path

    def _write_manifest(
        self, work: Path, facts: Mapping[str, JsonValue], inputs: Mapping[str, JsonValue]
    ) -> None:
        stages: dict[str, JsonValue] = {"download": dict(self._meter.cost())}
        files.write_manifest(work, KIND, inputs=inputs, facts={**facts, "stages": stages})


def shown_path(path: str | Path) -> str:
    """Return a path as text that can be written; names on the disk may be no UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def archive_name(url: str) -> str:
    """Return the file name that a URL ends with, safe to use on the disk."""
    name = PurePosixPath(redact_url(url)).name
    return re.sub(r"[^\w.-]", "_", name).lstrip(".")[-100:] or "archive"


def _not_one(
    file: Path, work: Path, folders: list[Path], formats: Mapping[str, RawFormat]
) -> DataError:
    """Build the error for an archive with no dataset, or several; it says what was found where."""
    found = [str(folder.relative_to(work)) for folder in folders]
    if found:
        hint = f"one is expected; unpack it and name one of its folders: {', '.join(found[:5])}"
        return DataError(f"archive with {len(found)} datasets", file.name, hint=hint)
    present = [path for path in sorted(work.rglob("*")) if path.is_file()]
    shown = ", ".join(str(path.relative_to(work)) for path in present[:5])
    more = f" and {len(present) - 5} more" if len(present) > 5 else ""
    value = f"{file.name} holds {shown or 'no files'}{more}"
    expected = " or ".join(each.description for each in formats.values())
    return DataError("archive with 0 datasets", value, hint=f"one is expected: {expected}")


def _note_origin(raw: Path, facts: Mapping[str, JsonValue]) -> None:
    """Note where a dataset came from the last time, as messages name the file that users know."""
    manifest = files.read_manifest(raw, KIND)
    if "origin" in facts and manifest.facts.get("origin") != facts["origin"]:
        noted = {**manifest.facts, "origin": facts["origin"]}
        values = manifest.model_copy(update={"facts": noted}).model_dump()
        files.write_json(raw / files.MANIFEST, values)


def _is_complete(path: Path) -> bool:
    try:
        files.read_manifest(path, KIND)
    except (NotFoundError, CorruptError):
        return False
    return True
