"""The manifest of an artifact: its kind, its files and its inputs by digest.

`manifest.json` is written last and names every other file by its sha256. So a directory that has
one is complete, and damage since then is found.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pydantic import JsonValue

from citeflow.errors import CorruptError, NotFoundError
from citeflow.files.contents import again_if_stale, read_json, sha256_of_file, sha256_of_json
from citeflow.files.replacing import write_json
from citeflow.utils import records
from citeflow.utils.records import Record

MANIFEST = "manifest.json"
REPAIR = "delete the folder and run the stage again"


class FileEntry(Record):
    """One file of an artifact."""

    bytes: int
    """Its size."""

    sha256: str
    """Its digest, in hexadecimal."""


class Manifest(Record):
    """Content of `manifest.json`."""

    kind: str
    """Kind of the artifact, such as PreparedGraph."""

    sha256: str
    """Digest of `kind`, `inputs` and `files`: the name of the artifact's content."""

    inputs: dict[str, JsonValue]
    """Origin of the artifact: its input artifacts by digest, and settings."""

    facts: dict[str, JsonValue]
    """Values for later stages, so that they need not open the files; not part of the digest."""

    files: dict[str, FileEntry]
    """Every other file below the directory, by its relative path."""

    @property
    def digest(self) -> str:
        """The value that `sha256` has unless the manifest was changed."""
        return sha256_of_json(self.model_dump(include={"kind", "inputs", "files"}))

    def number(self, fact: str) -> float:
        """Return a fact that is a number.

        Raises:
            CorruptError: there is none of this name.
        """
        value = self.facts.get(fact)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CorruptError(f"manifest of a {self.kind} lacks a number", fact, hint=REPAIR)
        return value

    def text(self, fact: str) -> str:
        """Return a fact that is text.

        Raises:
            CorruptError: there is none of this name.
        """
        value = self.facts.get(fact)
        if not isinstance(value, str):
            raise CorruptError(f"manifest of a {self.kind} lacks a text", fact, hint=REPAIR)
        return value


def write_manifest(
    directory: Path, kind: str, *, inputs: Mapping[str, JsonValue], facts: Mapping[str, JsonValue]
) -> Manifest:
    """Write the manifest of an artifact, as the last file in its `new_directory`.

    Args:
        directory: every file below it is listed with its size and sha256.
        kind: kind of the artifact, such as "PreparedGraph".
        inputs: its input artifacts by digest, and settings.
        facts: values for later stages; not part of the digest.
    """
    entries = {
        str(file.relative_to(directory)): FileEntry(
            bytes=file.stat().st_size, sha256=sha256_of_file(file)
        )
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    draft = Manifest(kind=kind, sha256="", inputs=dict(inputs), facts=dict(facts), files=entries)
    manifest = draft.model_copy(update={"sha256": draft.digest})
    write_json(directory / MANIFEST, manifest.model_dump())
    return manifest


@again_if_stale
def read_manifest(directory: Path, kind: str) -> Manifest:
    """Read the manifest of an artifact, and check that its files are there in their full size.

    Raises:
        NotFoundError: the directory or its manifest is missing.
        CorruptError: it is an artifact of another kind, or a file is missing or has another size.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise NotFoundError(f"no {kind} here", directory, hint="run the stage that makes it")
    values = read_json(path)
    actual_kind = values.get("kind") if isinstance(values, dict) else None
    if actual_kind != kind:
        hint = f"name the folder of a {kind}"
        raise CorruptError(f"a {actual_kind} where a {kind} belongs", directory, hint=hint)
    manifest = records.load(Manifest, values, name=str(path), error=CorruptError, hint=REPAIR)
    for name, entry in manifest.files.items():
        # A manifest from elsewhere must not make citeflow read outside of its folder.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CorruptError("not a manifest of citeflow", path, hint=REPAIR)
        file = directory / name
        if file.is_symlink() or not file.is_file() or file.stat().st_size != entry.bytes:
            raise CorruptError("file is missing or was cut", file, hint=REPAIR)
    return manifest


def is_whole(directory: Path, kind: str) -> bool:
    """Tell whether an artifact is there; its files are not read, as `verify` would."""
    try:
        read_manifest(directory, kind)
    except (NotFoundError, CorruptError):
        return False
    return True


def verify(directory: Path, kind: str) -> Manifest:
    """Read a manifest and compare every digest with its file, that of the manifest included.

    Raises:
        NotFoundError: as `read_manifest`.
        CorruptError: as `read_manifest`, or a digest differs.
    """
    manifest = read_manifest(directory, kind)
    if manifest.digest != manifest.sha256:
        raise CorruptError("manifest does not match its sha256", directory / MANIFEST, hint=REPAIR)
    for name, entry in manifest.files.items():
        if sha256_of_file(directory / name) != entry.sha256:
            raise CorruptError("file does not match its sha256", directory / name, hint=REPAIR)
    return manifest
