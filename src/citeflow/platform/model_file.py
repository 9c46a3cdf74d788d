"""A file of a model that somebody has sent: told by its content, checked, and never run.

`python -m citeflow.platform.model_file FILE` prints what it is as JSON, or the error in a line. The
platform runs it in a confined process: what a parser does not survive ends there.
"""

import ast
import hashlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from citeflow import own_model
from citeflow.errors import CiteflowError, ConfigError
from citeflow.platform.upload_bodies import TensorBody, Verdict

MODULE = "citeflow.platform.model_file"

PICKLES = {
    b"\x80": "a pickle",
    b"PK\x03\x04": "a zip, as torch.save writes it",
    b"PK\x05\x06": "a zip, as torch.save writes it",
    b"\x1f\x8b": "an archive",
    b"\x93NUMPY": "an array of numpy",
    b"\x89HDF": "a file of HDF5",
}
"""What files of models begin with that are not read."""

SHOWN_TENSORS = 200
MAX_TENSORS = 10_000
MAX_LETTERS = 300
"""Of the name of a tensor."""


def look(path: Path) -> Verdict:
    """Say what a file of a model is.

    Raises:
        ConfigError: it is neither weights nor code, or not right.
    """
    content = path.read_bytes()
    # The length of a header, then the header; first, as the length may look like a pickle's begin.
    if content[8:9] == b"{" and b"\0" in content[:8]:
        return _weights(content)
    for start, what in PICKLES.items():
        if content.startswith(start):
            hint = "weights come as safetensors: safetensors.torch.save_file writes them"
            raise ConfigError("neither weights nor code, and never read", what, hint=hint)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        hint = "weights as safetensors, or Python code with build(settings)"
        where = f"byte {error.start} is no UTF-8"
        raise ConfigError("neither weights nor code", where, hint=hint) from None
    return _code(content)


def _weights(content: bytes) -> Verdict:
    entries = own_model.read_weights(content)
    if not entries:
        raise ConfigError("weights without any tensor", "safetensors")
    if len(entries) > MAX_TENSORS:
        raise ConfigError(f"more than {MAX_TENSORS:,} tensors", len(entries))
    tensors = [TensorBody(name=name, shape=shape, type=type_) for name, shape, type_ in entries]
    for each in tensors:
        if not each.name.isprintable() or not 0 < len(each.name) <= MAX_LETTERS:
            raise ConfigError("not the name of a tensor", ascii(each.name)[:MAX_LETTERS])
    tensors.sort(key=lambda each: each.name)
    parameters = sum(math.prod(each.shape) for each in tensors)
    plural = "" if len(tensors) == 1 else "s"
    return Verdict(
        format="weights (safetensors)",
        summary=f"{len(tensors):,} tensor{plural}, {parameters:,} parameters",
        warnings=[],
        sha256=hashlib.sha256(content).hexdigest(),
        parameters=parameters,
        tensors=tensors[:SHOWN_TENSORS],
    )


def _code(content: bytes) -> Verdict:
    if len(content) > own_model.MAX_BYTES["code"]:
        limit = f"at most {own_model.MAX_BYTES['code'] >> 10:,} KiB"
        raise ConfigError("code is too large", f"{len(content):,} bytes", hint=limit)
    text = own_model.read_code(content)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError("no Python", f"line {error.lineno}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ConfigError("no Python that can be read", "it is nested too deeply") from None
    except ValueError as error:  # such as an integer of very many digits
        raise ConfigError("no Python that can be read", str(error).splitlines()[0]) from None
    build = next((each for each in _bound(tree.body) if _name(each) == "build"), None)
    if build is None:
        raise ConfigError("no function", "build(settings)", hint=own_model.PAGE)
    _check_arguments(build)
    lines = len(text.splitlines())
    return Verdict(
        format="code (Python)",
        summary=f"{lines:,} line{'' if lines == 1 else 's'} with build(settings)",
        warnings=[],
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _bound(body: list[ast.stmt]) -> Iterator[ast.stmt | ast.alias | ast.Name]:
    """Yield what binds a name when a module is imported, the last first: that one holds."""
    for each in reversed(body):
        if isinstance(each, ast.Import | ast.ImportFrom):
            yield from each.names
        elif isinstance(each, ast.Assign | ast.AnnAssign):
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            yield from (target for target in targets if isinstance(target, ast.Name))
        elif isinstance(each, ast.If | ast.Try | ast.TryStar | ast.With):
            for handler in getattr(each, "handlers", []):
                yield from _bound(handler.body)
            for part in ("finalbody", "orelse", "body"):
                yield from _bound(getattr(each, part, []))
        else:
            yield each


def _name(bound: ast.stmt | ast.alias | ast.Name) -> str:
    if isinstance(bound, ast.alias):
        return bound.asname or bound.name
    return str(getattr(bound, "id", "") or getattr(bound, "name", ""))


def _check_arguments(build: ast.stmt | ast.alias | ast.Name) -> None:
    """Check that `build` takes one argument, where that can be read."""
    if isinstance(build, ast.AsyncFunctionDef):
        raise ConfigError("build is no plain function", f"line {build.lineno}: async")
    if not isinstance(build, ast.FunctionDef):
        return
    given = build.args
    most = len(given.posonlyargs) + len(given.args)
    least = most - len(given.defaults)
    needs_names = any(default is None for default in given.kw_defaults)
    if least > 1 or (most == 0 and given.vararg is None) or needs_names:
        where = f"line {build.lineno}"
        raise ConfigError("build does not take one argument", where, hint="build(settings)")


def main(path: str) -> int:
    """Print the verdict on a file, or the error."""
    try:
        print(look(Path(path)).model_dump_json())
    except CiteflowError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
