"""A noun (RawDataset, PreparedGraph, TrainedModel, EvalReport) is a directory that a manifest describes.

`manifest.json` is written last and names every other file by its sha256.
"""

from pathlib import Path, PurePosixPath

from citeflow.errors import CorruptError, NotFoundError
from citeflow.files.contents import Json, again_if_stale, read_json, sha256_of_file, sha256_of_json
from citeflow.files.replacing import write_json

MANIFEST = "manifest.json"
AGAIN = "delete the folder and run the step again"


def write_manifest(directory: Path, kind: str, *, inputs: Json, facts: Json) -> str:
    """Describe the files of a directory that is being made; returns the digest that names its content.

    Args:
        directory: where the files lie; every file below it is listed with its size and sha256.
        kind: the noun, such as "PreparedGraph".
        inputs: what it was made from, by digest.
        facts: anything a later stage wants to know without opening the files.
    """
    files = {
        str(file.relative_to(directory)): {
            "bytes": file.stat().st_size,
            "sha256": sha256_of_file(file),
        }
        for file in sorted(directory.rglob("*"))
        if file.is_file() and file.name != MANIFEST
    }
    digest = _digest({"kind": kind, "inputs": inputs, "files": files})
    manifest = {"kind": kind, "sha256": digest, "inputs": inputs, "facts": facts, "files": files}
    write_json(directory / MANIFEST, manifest)
    return digest


@again_if_stale
def read_manifest(directory: Path, kind: str) -> Json:
    """Read the manifest of a noun and check that its files are there in their full size.

    Raises:
        NotFoundError: the directory or its manifest is missing.
        CorruptError: it is another noun, or a file is missing or has another size.
    """
    if not (directory / MANIFEST).is_file():
        raise NotFoundError(f"no {kind} here", directory, hint="run the step that makes it")
    manifest: Json = read_json(directory / MANIFEST)
    found = manifest.get("kind") if isinstance(manifest, dict) else None
    if found != kind:
        raise CorruptError(
            f"a {found} where a {kind} belongs", directory, hint=f"name the folder of a {kind}"
        )
    for name, entry in _entries(directory, manifest).items():
        file = directory / name
        if file.is_symlink() or not file.is_file() or file.stat().st_size != entry["bytes"]:
            raise CorruptError("file is missing or was cut", file, hint=AGAIN)
    return manifest


def verify(directory: Path, kind: str) -> Json:
    """As `read_manifest`, and compare every digest too, its own included."""
    manifest = read_manifest(directory, kind)
    if _digest(manifest) != manifest["sha256"]:
        raise CorruptError("manifest does not match its sha256", directory / MANIFEST, hint=AGAIN)
    for name, entry in manifest["files"].items():
        if sha256_of_file(directory / name) != entry["sha256"]:
            raise CorruptError("file does not match its sha256", directory / name, hint=AGAIN)
    return manifest


def _digest(manifest: Json) -> str:
    return sha256_of_json({key: manifest[key] for key in ("kind", "inputs", "files")})


def _entries(directory: Path, manifest: Json) -> dict[str, Json]:
    """What a manifest says of its files, all of which lie below it."""
    try:
        entries: dict[str, Json] = manifest["files"]
        whole = all(entry.keys() == {"bytes", "sha256"} for entry in entries.values())
        whole &= all(isinstance(manifest[key], dict) for key in ("inputs", "facts"))
        whole &= isinstance(manifest["sha256"], str)
    except (KeyError, TypeError, AttributeError):
        entries, whole = {}, False
    if not whole or any(
        PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in entries
    ):
        raise CorruptError("not a manifest of citeflow", directory / MANIFEST, hint=AGAIN)
    return entries
