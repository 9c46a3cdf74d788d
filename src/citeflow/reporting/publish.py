"""The stage `publish`: the results of a run where people look for them."""

import os
from pathlib import Path

from citeflow import files
from citeflow.errors import ConfigError, CorruptError, NotFoundError
from citeflow.paths import RunPaths
from citeflow.report import REPORT, Curves, Report, StageCost
from citeflow.utils.logging import log
from citeflow.utils.usage import StageMeter

PAGE = "report.html"
MODEL = "model"
OTHER_FOLDER = "name another folder"


def publish(report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
    """Publish a run: page, report and model in a folder, the result in TensorBoard.

    Whatever an earlier call has published there is replaced.

    Args:
        report: the EvalReport.
        model: the TrainedModel that it is about.
        run: the run, whose logs TensorBoard shows.
        out: folder for `report.html`, `report.json` and `model/`.

    Raises:
        ConfigError: the results cannot be written to `out`.
        NotFoundError: an artifact is missing.
        CorruptError: an artifact is damaged.
    """
    # Not on top: commands that only check their folders run without matplotlib and TensorBoard.
    from citeflow.reporting.html import render_report
    from citeflow.reporting.tensorboard import publish_run

    meter = StageMeter()
    check_folder(out)
    _check_replaceable(out / MODEL)
    files.verify(report, "EvalReport")
    files.verify(model, "TrainedModel")
    content = Report.read(report)
    curves = Curves.read(report)
    publish_run(run.logs, content, curves)
    files.copy_directory(model, out / MODEL)
    stages = {**content.stages, "publish": StageCost(**meter.cost())}
    content = content.model_copy(update={"stages": stages})
    files.write_text(out / PAGE, render_report(content, curves))
    files.write_json(out / REPORT, content.to_json())
    log("publish", "done", report=out / PAGE, logs=run.logs)


def check_output_folders(data_root: Path, out: Path) -> None:
    """Check, before any work, that a run and its results can be written.

    Raises:
        ConfigError: a folder is a file or read-only, or `out`/model is not citeflow's to replace.
    """
    check_folder(data_root)
    check_folder(out)
    _check_replaceable(out / MODEL)


def check_folder(folder: Path) -> None:
    """Check that a folder can be written to, or created.

    Raises:
        ConfigError: it cannot.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigError("a file where a folder belongs", existing, hint=OTHER_FOLDER)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError("folder cannot be written to", existing, hint=OTHER_FOLDER)


def _check_replaceable(model: Path) -> None:
    """Check that nothing is in the way of the model but one that was published before."""
    if not os.path.lexists(model):
        return
    try:
        manifest = files.read_json(model / files.MANIFEST)
    except (NotFoundError, CorruptError, NotADirectoryError):
        manifest = None
    if not isinstance(manifest, dict) or manifest.get("kind") != "TrainedModel":
        what = "not a model of citeflow, and would be replaced"
        raise ConfigError(what, model, hint=OTHER_FOLDER)
