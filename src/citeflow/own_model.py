"""One's own model: the files of `model.code` and `model.weights`, on their way to a training.

A file is copied below the data root under its sha256, and a run's settings hold that digest in
place of the path. So they say what model comes out wherever they are read, a training that is
resumed with a changed file is refused as one with changed settings is, and code reaches nothing but
the workers of the training. This module reads and copies the files; it runs nothing.
"""

import errno
import hashlib
import re
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import JsonValue

from citeflow import config, files
from citeflow.config import TaskConfig
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.utils.records import Record

TRAINED_MODEL = "TrainedModel"
EVAL_REPORT = "EvalReport"

CODE = "own_model.py"
"""Name of the code in a TrainedModel."""

MAX_BYTES = {"code": 1 << 20, "weights": 1 << 30}
"""Largest files, by the setting of the section `model`."""

SUFFIXES = {"code": ".py", "weights": ".safetensors"}

FOLDER = "own"
"""Folder of all such files below the data root."""

PAGE = "docs/own-model.md"

_DIGEST = re.compile(r"[0-9a-f]{64}")

C = TypeVar("C", bound=TaskConfig)


class OwnFiles(NamedTuple):
    """Files of a run; each is None where the settings name none."""

    code: Path | None = None
    weights: Path | None = None

    def read_code(self) -> str | None:
        """Return the source code."""
        return None if self.code is None else self.code.read_text(encoding="utf-8")


NO_FILES = OwnFiles()


def names(settings: TaskConfig) -> dict[str, str]:
    """Return what the settings name, by `code` and `weights`."""
    model = settings.to_dict().get("model", {})
    return {each: value for each in SUFFIXES if (value := str(model.get(each) or ""))}


def has_code(settings: TaskConfig) -> bool:
    """Tell whether the model is made by code of one's own."""
    return "code" in names(settings)


def bring(settings: C, data_root: Path) -> C:
    """Copy the files that a command names below the data root; return settings with digests.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is no plain file, too large, or not what it should be.
    """
    return _with_digests(settings, data_root, trusted=True)


def settle(settings: C, data_root: Path) -> C:
    """Do the same for files that lie on the volume, for settings that may be somebody else's.

    A path is relative to the data root, and may not lead out of it.

    Raises:
        NotFoundError: there is no such file on the volume.
        ConfigError: as `bring`, or the path leads out of the data root.
    """
    return _with_digests(settings, data_root, trusted=False)


def open_files(settings: TaskConfig, data_root: Path | None) -> OwnFiles:
    """Find and verify the files whose digests the settings hold.

    Raises:
        NotFoundError: one is not on the volume.
        CorruptError: its content is another.
    """
    found: dict[str, Path] = {}
    for name, digest in names(settings).items():
        path = _path(data_root or Path(), name, digest)
        if not path.is_file():
            hint = "give the file again"
            raise NotFoundError(f"the file of model.{name} is not on the volume", path, hint=hint)
        if files.sha256_of_file(path) != digest:
            raise CorruptError("not the file that the run was started with", path)
        found[name] = path
    return OwnFiles(**found)


def paths(settings: TaskConfig, data_root: Path) -> set[Path]:
    """Return where the files lie whose digests the settings hold."""
    return {_path(data_root, name, digest) for name, digest in names(settings).items()}


def decisive(settings: TaskConfig) -> str:
    """Return the digest of the settings that decide what model comes out.

    Settings that came later do not count where they change nothing: runs of earlier versions stay
    valid.
    """
    values = settings.model_dump(include={"model", "train"})
    for name in SUFFIXES:
        if not values["model"].get(name):
            values["model"].pop(name, None)
    if values["train"].get("precision") == "float32":
        del values["train"]["precision"]
    return files.sha256_of_json(values)


def copy_code(files_of_run: OwnFiles, work: Path) -> dict[str, JsonValue]:
    """Put the code into a TrainedModel that is being written; return facts for its manifest."""
    if files_of_run.code is None:
        return {}
    files.copy_file(files_of_run.code, work / CODE)
    return {"code": files_of_run.code.stem}


def refuse_code(model: Record, folder: Path) -> None:
    """Refuse to read a model whose code would have to run here.

    Args:
        model: the section `model` of its settings.
        folder: the TrainedModel.

    Raises:
        ConfigError: it has code of its own.
    """
    if getattr(model, "code", ""):
        hint = f"only its training runs it: {PAGE} says what such a run gives"
        raise ConfigError("the model has code of its own", folder, hint=hint)


def report_of_training(model: Path, report: Path) -> Path | None:
    """Return the EvalReport that a training has made of a model with code of its own.

    Args:
        model: a TrainedModel.
        report: where the report of its run is.

    Returns:
        `report`; None for a model without such code.

    Raises:
        NotFoundError: there is no report of this very model.
    """
    manifest = files.read_manifest(model, TRAINED_MODEL)
    if "code" not in manifest.facts:
        return None
    if is_evaluated(model, report):
        return report
    hint = f"its training makes it, where alone its code runs: train it again; {PAGE}"
    raise NotFoundError("no report of a model with code of its own", report, hint=hint)


def is_evaluated(model: Path, report: Path) -> bool:
    """Tell whether a report is there, undamaged, and of this model."""
    try:
        made_of = files.verify(report, EVAL_REPORT).inputs.get(TRAINED_MODEL)
    except (NotFoundError, CorruptError):
        return False
    return bool(made_of == files.read_manifest(model, TRAINED_MODEL).sha256)


def read_code(content: bytes, given: str = "") -> str:
    """Return source code as text; nothing is said of what it does.

    Args:
        content: of a file.
        given: its name, for messages.

    Raises:
        ConfigError: it is no text in UTF-8, or an empty one.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{given}: byte {error.start}".removeprefix(": ")
        raise ConfigError("model.code is no text in UTF-8", where) from None
    if not text.strip() or "\0" in text:
        raise ConfigError("model.code holds no Python code", given)
    return text


def read_weights(content: bytes) -> list[tuple[str, list[int], str]]:
    """Return name, shape and type of each tensor; whether they fit, and values, the model judges.

    Raises:
        ConfigError: header or offsets are not those of a safetensors file.
    """
    import safetensors

    try:
        found = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        hint = "as safetensors.torch.save_file writes it; pickles are never read"
        reason = str(error).splitlines()[0]
        raise ConfigError("model.weights is no safetensors file", reason, hint=hint) from None
    return [(name, list(entry["shape"]), str(entry["dtype"])) for name, entry in found]


def _with_digests(settings: C, data_root: Path, *, trusted: bool) -> C:
    changes: dict[str, str] = {}
    for name, value in names(settings).items():
        if not _DIGEST.fullmatch(value):
            path = Path(value).expanduser() if trusted else _on_volume(name, value, data_root)
            changes[name] = _take(name, path, value, data_root)
        elif not _path(data_root, name, value).is_file():
            raise NotFoundError(f"the file of model.{name} is not on the volume", value)
    return config.changed(settings, {"model": changes}) if changes else settings


def _on_volume(name: str, value: str, data_root: Path) -> Path:
    path = data_root / value
    if "\0" in value or not path.resolve().is_relative_to(data_root.resolve()):
        hint = "a path relative to the data root"
        raise ConfigError(f"model.{name} leads out of the volume", value, hint=hint)
    return path


def _take(name: str, path: Path, given: str, data_root: Path) -> str:
    """Check a file, and copy it to where its digest says; return the digest."""
    content = _read(name, path, given)
    if name == "code":
        read_code(content, given)
    else:
        read_weights(content)
    digest = hashlib.sha256(content).hexdigest()
    target = _path(data_root, name, digest)
    if not target.is_file():
        files.write_bytes(target, content)
    return digest


def _path(data_root: Path, name: str, digest: str) -> Path:
    return data_root / FOLDER / f"{digest}{SUFFIXES[name]}"


def _read(name: str, path: Path, given: str) -> bytes:
    """Read a plain file; of a link, a folder or a pipe nothing is read."""
    setting = f"model.{name}"
    try:
        with files.open_plain(path) as file:
            content = file.read(MAX_BYTES[name] + 1)
    except FileNotFoundError:
        raise NotFoundError(f"no such file for {setting}", given) from None
    except OSError as error:
        reason = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise ConfigError(f"{setting} is no plain file", f"{given}: {reason}") from None
    except ValueError:  # a NUL
        raise ConfigError(f"{setting} is no path", repr(given)) from None
    if len(content) > MAX_BYTES[name]:
        limit = f"at most {MAX_BYTES[name] >> 10:,} KiB"
        raise ConfigError(f"{setting} is too large", given, hint=limit)
    return content
