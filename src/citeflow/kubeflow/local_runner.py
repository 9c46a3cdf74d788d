"""Run a compiled pipeline on this machine: the very file that is uploaded to a cluster, through kfp.local.

kfp.local has habits that this module undoes: it deletes the workspace that it was given, prints everything in colour on
stdout, tells a failed step only by name, and repeats a step that can never succeed after long waits.
"""

import builtins
import collections
import contextlib
import importlib.resources
import importlib.util
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from citeflow.errors import INSTALL, CiteflowError, NotFoundError, TrainingError, UnavailableError
from citeflow.kubeflow.pipeline_spec import tasks
from citeflow.utils import termination_message

_PROGRESS = re.compile(r"\d\d:\d\d:\d\d [a-z]+(\[\d+\])? ")
"""A line of `console.log`."""

_NOISE = re.compile(r"\d\d:\d\d:\d\d\.\d+ - |\[KFP Executor |error: |hint: |-+$|$")
"""A line of kfp's own, or one that is told again at the end."""

_COLOUR = re.compile(r"\x1b\[\d+m")

KEPT_LINES = 200

NAMES = ("citation", "scaling", "compare", "tune")
"""The pipelines, each a folder below `pipelines`."""


def compiled(name: str = "citation") -> Path:
    """A compiled pipeline, one of NAMES: that of the checkout, or else the one that was installed with the package.

    Raises:
        NotFoundError: there is neither.
    """
    in_checkout = Path(__file__).resolve().parents[3] / "pipelines" / name / "pipeline.yaml"
    installed = Path(str(importlib.resources.files("citeflow"))) / "compiled" / f"{name}.yaml"
    for path in (in_checkout, installed):
        if path.is_file():
            return path
    raise NotFoundError("no compiled pipeline", in_checkout, hint="run `citeflow compile`")


def run(
    arguments: Mapping[str, Any], *, scratch: Path, name: str = "citation", verbose: bool = False
) -> None:
    """Run a pipeline to its end, with the steps' progress on stderr.

    Args:
        arguments: values of its parameters.
        name: one of NAMES.
        scratch: where the artifacts lie meanwhile; a folder below it is made and removed.
        verbose: show everything that kfp and the steps print.

    Raises:
        CiteflowError: a step failed; the very error that it ended with, where it said so.
        UnavailableError: kfp is not installed.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix=".pipeline-") as folder,
        tempfile.TemporaryDirectory(prefix="citeflow-") as temporary,
    ):
        left = Path(temporary) / "error.json"
        output = _Output(verbose)
        try:
            with (
                _kept_apart(output),
                _environment({termination_message.VARIABLE: str(left), "TMPDIR": temporary}),
            ):
                _execute(compiled(name).read_text(), arguments, Path(folder))
        except RuntimeError as failure:
            raise _cause(left, output, failure) from None


def _execute(text: str, arguments: Mapping[str, Any], folder: Path) -> None:
    _hide_a_folder_named_docker()
    try:
        from kfp import components, local
    except ImportError:
        raise UnavailableError("kfp is not installed", hint=INSTALL) from None
    pipeline = components.load_component_from_text(_without_retries(text))
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "artifacts"),
        workspace_root=str(folder / "workspace"),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Task .* have no effect in the current local runner", UserWarning
        )
        pipeline(**arguments)


def _hide_a_folder_named_docker() -> None:
    """kfp.local imports the package `docker` if there is one, and takes a checkout's folder of this name for it."""
    spec = importlib.util.find_spec("docker")
    if spec is not None and spec.origin is None:
        sys.modules["docker"] = None  # type: ignore[assignment]


def _without_retries(text: str) -> str:
    """A step that fails here fails for good; kfp.local would wait and try again whatever the reason."""
    documents = list(yaml.safe_load_all(text))
    for task in tasks(documents[0]):
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def _cause(left: Path, output: "_Output", failure: RuntimeError) -> CiteflowError:
    """The error that a step told, or one that only names the step; where its message may not do, its last lines too."""
    told = termination_message.read(left)
    if told is None or isinstance(told, TrainingError):
        sys.stderr.writelines(output.traceback())
    step = re.search("Inner task failed: '([^']*)'", _COLOUR.sub("", str(failure)))
    name = step[1] if step else str(failure)
    return told or CiteflowError(
        "a step of the pipeline failed", name, hint="see what it printed above"
    )


class _Output(io.TextIOBase):
    """Stands in for stdout while kfp runs: lets progress through to stderr and keeps the last of the rest."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._others: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._begun = (self._begun + text).split("\n")
        for line in whole:
            self._line(line.removeprefix("    "))
        return len(text)

    def _line(self, line: str) -> None:
        told = line.lstrip()  # kfp indents a loop once more
        if self.verbose or _PROGRESS.match(told):
            sys.stderr.write(f"{line if self.verbose else told}\n")
            sys.stderr.flush()
        elif not _NOISE.match(line):
            self._others.append(f"{line}\n")

    def traceback(self) -> list[str]:
        """The last lines that were kept back, from the first traceback among them if there is one."""
        lines = list(self._others)
        starts = [index for index, line in enumerate(lines) if line.startswith("Traceback ")]
        return lines[starts[0] :] if starts else lines


@contextlib.contextmanager
def _kept_apart(output: _Output) -> Iterator[None]:
    """Send what kfp prints to `output`, and put back what it may leave changed."""
    root = logging.getLogger()
    old_print, old_handlers, old_level = builtins.print, root.handlers[:], root.level
    try:
        with contextlib.redirect_stdout(output):
            yield
    finally:
        builtins.print = old_print
        root.handlers[:] = old_handlers
        root.setLevel(old_level)


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    old = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in old.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
