"""Every error that a user can meet, with the exit code that the command ends with.

CiteflowError                 70   citeflow itself, or the system below it, failed
├── ConfigError               64   a setting or an option is wrong
├── DataError                 65   the data that was given is wrong
├── NotFoundError             66   a file, dataset, run or paper does not exist
├── UnavailableError          69   a server or a package that is needed does not answer
├── CorruptError              74   a file that citeflow wrote no longer matches its digest
├── TrainingError             75   training ended without a model (a worker died, a loss was not finite)
└── StoppedError             143   somebody asked the work to stop; what was saved is kept

128 and above say "run it again". Below, the same call fails again until something else changes.
"""

INSTALL = "pip install '.[train,kfp]' in a checkout of citeflow"
"""The hint where a package is missing: no package index has citeflow."""


class CiteflowError(Exception):
    """An error told in one line, `error: <what>: <value>`, and a line that says what to do."""

    exit_code = 70

    def __init__(self, what: str, value: object = "", *, hint: str = "") -> None:
        super().__init__(what, value, hint)
        self.what, self.value, self.hint = what, str(value), hint

    def __str__(self) -> str:
        line = f"error: {self.what}: {self.value}" if self.value else f"error: {self.what}"
        return f"{line}\nhint: {self.hint}" if self.hint else line


class ConfigError(CiteflowError):
    """A setting or an option is wrong."""

    exit_code = 64


class DataError(CiteflowError):
    """The data that was given is wrong."""

    exit_code = 65


class NotFoundError(CiteflowError):
    """A file, dataset, run or paper does not exist."""

    exit_code = 66


class UnavailableError(CiteflowError):
    """A server or a package that is needed does not answer."""

    exit_code = 69


class CorruptError(CiteflowError):
    """A file that citeflow wrote no longer matches its digest."""

    exit_code = 74


class TrainingError(CiteflowError):
    """Training ended without a model."""

    exit_code = 75


class StoppedError(CiteflowError):
    """Somebody asked the work to stop."""

    exit_code = 143


def to_user_error(error: Exception) -> CiteflowError:
    """Turn a failure of the system (no space, no permission), or a package that is missing, into an error to tell.

    Raises:
        Exception: the error itself, where it is neither: a bug, which needs its traceback.
    """
    if isinstance(error, CiteflowError):
        return error
    if (
        isinstance(error, ModuleNotFoundError)
        and error.name
        and error.name.partition(".")[0] != __package__
    ):
        return UnavailableError("package is not installed", error.name, hint=INSTALL)
    if isinstance(error, OSError):
        return CiteflowError(error.strerror or type(error).__name__, error.filename or error)
    raise error


def error_from_dict(record: dict[str, object]) -> CiteflowError:
    """Rebuild an error from `to_record`'s dict, as a pipeline step leaves it for the command that started it."""
    kinds = {kind.__name__: kind for kind in CiteflowError.__subclasses__()}
    kind = kinds.get(str(record.get("kind")), CiteflowError)
    error = kind(str(record.get("what")), record.get("value", ""), hint=str(record.get("hint", "")))
    error.exit_code = int(str(record.get("exit_code", kind.exit_code)))
    return error


def error_to_dict(error: CiteflowError) -> dict[str, object]:
    """Describe an error in plain values, so that it can cross from one process to another."""
    record = {
        "kind": type(error).__name__,
        "what": error.what,
        "value": error.value,
        "hint": error.hint,
    }
    return {**record, "exit_code": error.exit_code}
