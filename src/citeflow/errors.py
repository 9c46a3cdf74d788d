"""Every error that a user can meet, with the exit code of the command.

CiteflowError                 70   citeflow itself, or the system below it, failed
├── ConfigError               64   a setting or an option is wrong
├── DataError                 65   the data that was given is wrong
├── NotFoundError             66   a file, dataset, run or paper does not exist
├── UnavailableError          69   a server that is needed does not answer
├── MissingPackageError       72   a package that is needed is not installed
├── CorruptError              74   a file that citeflow wrote no longer matches its digest
├── TrainingError             75   training ended without a model (a worker died, NaN)
└── StoppedError             143   somebody asked the work to stop; what was saved is kept

After which of them a step starts again is in WORTH_ANOTHER_ATTEMPT.
"""

import contextlib
import errno
from collections.abc import Iterator, Mapping

INSTALL = "pip install '.[train,kfp]' in a checkout of citeflow"
"""The hint where a package is missing: no package index has citeflow."""

OUT_OF_MEMORY = 137
"""Exit code where memory is refused: that of a process which the kernel kills for it."""

AWAY = {
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.EIO,
    errno.ENETUNREACH,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""Errors of the system with which a server is away, that of a mounted disk among them."""


class CiteflowError(Exception):
    """An error in one line, `error: <what>: <value>`, and a second line that says what to do."""

    exit_code = 70

    def __init__(
        self, what: str, value: object = "", *, hint: str = "", exit_code: int | None = None
    ) -> None:
        super().__init__(what, value, hint)
        self.what = what
        self.value = str(value)
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        """Return the line, and the hint in a second one."""
        line = f"error: {self.what}: {self.value}" if self.value else f"error: {self.what}"
        return f"{line}\nhint: {self.hint}" if self.hint else line


@contextlib.contextmanager
def named_as(actual: object, given: object) -> Iterator[None]:
    """Let the errors of a block name a file as the user gave it, and not where its copy lies."""
    try:
        yield
    except CiteflowError as error:
        what, value, hint = (
            text.replace(str(actual), str(given)) for text in (error.what, error.value, error.hint)
        )
        raise type(error)(what, value, hint=hint, exit_code=error.exit_code) from None


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
    """A server that is needed does not answer."""

    exit_code = 69


class MissingPackageError(CiteflowError):
    """A package that is needed is not installed."""

    exit_code = 72


class CorruptError(CiteflowError):
    """A file that citeflow wrote no longer matches its digest."""

    exit_code = 74


class TrainingError(CiteflowError):
    """Training ended without a model."""

    exit_code = 75


class StoppedError(CiteflowError):
    """Somebody asked the work to stop."""

    exit_code = 143


WORTH_ANOTHER_ATTEMPT = {
    UnavailableError.exit_code: "the server may answer again",
    OUT_OF_MEMORY: "others may have given back their memory",
}
"""Exit codes of a step after which it starts again by itself, and why that may help.

A process that was killed by a signal starts again too. All other errors come again: those of
settings, data and packages, a bug, and a training whose own restarts are spent (75).
"""


def may_pass(exit_code: int) -> bool:
    """Return True if another attempt of the same call may succeed, with nothing else changed.

    Args:
        exit_code: that of a process; below 0 the number of the signal that killed it.
    """
    return exit_code < 0 or exit_code in WORTH_ANOTHER_ATTEMPT


def to_user_error(error: Exception) -> CiteflowError:
    """Turn a failure of the system, or a missing package, into an error for the user.

    Raises:
        Exception: the error itself, where it is neither: a bug, which needs its traceback.
    """
    if isinstance(error, CiteflowError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package != __package__:
            return MissingPackageError("package is not installed", error.name, hint=INSTALL)
    if isinstance(error, MemoryError):
        return CiteflowError("out of memory", error, exit_code=OUT_OF_MEMORY)
    if isinstance(error, OSError):
        kind = UnavailableError if error.errno in AWAY else CiteflowError
        return kind(error.strerror or type(error).__name__, error.filename or error)
    raise error


def error_to_dict(error: CiteflowError) -> dict[str, str | int]:
    """Describe an error in plain values, so that it can cross from one process to another."""
    return {
        "kind": type(error).__name__,
        "what": error.what,
        "value": error.value,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def error_from_dict(values: object) -> CiteflowError:
    """Rebuild an error that `error_to_dict` has described.

    Raises:
        TypeError: no mapping was described.
    """
    if not isinstance(values, Mapping):
        raise TypeError(values)
    kinds = {kind.__name__: kind for kind in CiteflowError.__subclasses__()}
    kind = kinds.get(str(values.get("kind")), CiteflowError)
    return kind(
        str(values.get("what")),
        values.get("value", ""),
        hint=str(values.get("hint", "")),
        exit_code=int(str(values.get("exit_code", kind.exit_code))),
    )
