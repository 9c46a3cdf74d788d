"""Run a compiled pipeline on this machine, by kfp.local: the very file that a cluster gets.

kfp.local has habits that this module undoes. It deletes the workspace that it was given, prints
everything in color on stdout, names a failed step but not its error, and retries a step that can
never succeed after long waits.
"""

import builtins
import collections
import contextlib
import io
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from citeflow.attempts import PAUSE_VARIABLE, RUNNER_VARIABLE
from citeflow.errors import INSTALL, CiteflowError, MissingPackageError, TrainingError
from citeflow.files import termination_message
from citeflow.kubeflow.pipeline_spec import tasks
from citeflow.utils.logging import LOG_LINE
from citeflow.utils.signals import open_fifo

_NOISE = re.compile(r"\d\d:\d\d:\d\d\.\d+ - |\[KFP Executor |error: |hint: |-+$|$")
"""A line of kfp's own, or one that is printed again at the end."""

_COLOR = re.compile(r"\x1b\[\d+m")

RETRY_PAUSE_S = 1.0
"""Pause before a step that was killed is started again; nothing comes back later here."""

KEPT_LINES = 200
"""Lines of a step's output that are kept for the case that it fails."""


Argument = str | int | float | bool | list[str] | list[int] | list[float]


def run_pipeline(
    pipeline: Path, arguments: Mapping[str, Argument], *, scratch: Path, verbose: bool = False
) -> None:
    """Run a compiled pipeline to its end, with the progress of its steps on stderr.

    A step is asked to stop when this process dies, by whatever signal.

    Args:
        pipeline: the compiled file.
        arguments: values of its parameters.
        scratch: where the artifacts lie meanwhile; a folder below it is made and removed.
        verbose: show everything that kfp and the steps print.

    Raises:
        CiteflowError: a step failed; the very error that it ended with, where it left one.
        MissingPackageError: kfp is not installed.
    """
    text = _without_retries(pipeline.read_text())
    scratch.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=scratch, prefix=".pipeline-") as folder,
        tempfile.TemporaryDirectory(prefix="citeflow-") as temporary,
    ):
        message = Path(temporary) / "error.json"
        runner = Path(temporary) / "runner"
        output = _StepOutput(verbose)
        environment = {
            termination_message.VARIABLE: str(message),
            "TMPDIR": temporary,
            PAUSE_VARIABLE: str(RETRY_PAUSE_S),
            RUNNER_VARIABLE: str(runner),
            # kfp starts each step with `python -m`: what lies in the working folder is no code.
            "PYTHONSAFEPATH": "1",
        }
        try:
            with open_fifo(runner), _captured(output), _environment(environment):
                # Imported as late as this: it takes a second, and binds what `print` is.
                try:
                    from kfp import components, local
                except ImportError:
                    raise MissingPackageError("kfp is not installed", hint=INSTALL) from None
                local.init(
                    runner=local.SubprocessRunner(use_venv=False),
                    pipeline_root=f"{folder}/artifacts",
                    workspace_root=f"{folder}/workspace",
                )
                with warnings.catch_warnings():
                    ignored = "Task .* have no effect in the current local runner"
                    warnings.filterwarnings("ignore", ignored, UserWarning)
                    components.load_component_from_text(text)(**arguments)
        except RuntimeError as failure:
            raise _error_of_step(message, output, failure) from None


def _without_retries(text: str) -> str:
    """Drop retry policies: a step tries again by itself what may pass, after shorter pauses."""
    documents = list(yaml.safe_load_all(text))
    for task in tasks(documents[0]):
        task.pop("retryPolicy", None)
    return yaml.safe_dump_all(documents)


def _error_of_step(message: Path, output: "_StepOutput", failure: RuntimeError) -> CiteflowError:
    """Return the error that a step left, or else one that names the step.

    Where the message may not explain enough, the last lines of the step are printed as well.
    """
    error = termination_message.read(message)
    if error is None or isinstance(error, TrainingError):
        sys.stderr.writelines(output.traceback())
    if error is not None:
        return error
    match = re.search("Inner task failed: '([^']*)'", _COLOR.sub("", str(failure)))
    name = match[1] if match else str(failure)
    return CiteflowError("a step of the pipeline failed", name, hint="see what it printed above")


class _StepOutput(io.TextIOBase):
    """Stands in for stdout while kfp runs: passes progress on, and keeps the last of the rest."""

    def __init__(self, verbose: bool) -> None:
        self.verbose = verbose
        self._kept: collections.deque[str] = collections.deque(maxlen=KEPT_LINES)
        self._partial_line = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._partial_line = (self._partial_line + text).split("\n")
        for line in lines:
            self._write_line(line.removeprefix("    "))
        return len(text)

    def _write_line(self, line: str) -> None:
        unindented = line.lstrip()  # kfp indents the steps of a loop once more
        if self.verbose or LOG_LINE.match(unindented):
            # Not print(): kfp has replaced it by one that indents.
            sys.stderr.write(f"{line if self.verbose else unindented}\n")
            sys.stderr.flush()
        elif not _NOISE.match(line):
            self._kept.append(f"{line}\n")

    def traceback(self) -> list[str]:
        """Return the lines kept back, from the first traceback on if there is one."""
        lines = list(self._kept)
        starts = [index for index, line in enumerate(lines) if line.startswith("Traceback ")]
        return lines[starts[0] :] if starts else lines


@contextlib.contextmanager
def _captured(output: _StepOutput) -> Iterator[None]:
    """Send what kfp prints to `output`, and restore what it may leave changed."""
    root = logging.getLogger()
    old_print = builtins.print
    old_handlers = root.handlers[:]
    old_level = root.level
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
