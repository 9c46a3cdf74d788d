"""What a published run tells MLflow, where MLFLOW_TRACKING_URI is set; without it, nothing here imports mlflow.

All results are on disk before MLflow is asked, so a server that is away costs its copy of them, and a repetition.
"""

import importlib.util
import os
import shlex
from pathlib import Path

from citeflow import paths
from citeflow.errors import UnavailableError
from citeflow.reporting.mlflow.quiet import failures_told, quiet, shown
from citeflow.reporting.mlflow.run_record import make_account
from citeflow.utils.logging import log

VARIABLE = "MLFLOW_TRACKING_URI"
INSTALL = f"pip install '.[mlflow]' in a checkout of citeflow, or unset {VARIABLE}"


def check() -> None:
    """Find out before any work whether MLflow can be told of it, where it shall be.

    Raises:
        UnavailableError: the package is not installed.
    """
    if os.environ.get(VARIABLE) and importlib.util.find_spec("mlflow") is None:
        raise UnavailableError("package is not installed", "mlflow", hint=INSTALL)


def publish_run(report: Path, *, model: Path, log_dir: Path, out_dir: Path) -> None:
    """Tell MLflow of a published run, if it shall be told; telling it twice of the same one adds nothing.

    Args:
        report: the EvalReport.
        model: the TrainedModel.
        log_dir: where TensorBoard finds the run.
        out_dir: what was published of it.

    Raises:
        UnavailableError: MLflow does not answer, refuses the run, or is not installed.
    """
    uri = os.environ.get(VARIABLE)
    if not uri:
        return
    check()
    root, name = paths.place_of(report.parent, log_dir)
    account = make_account(name, report, model=model, root=root, out_dir=out_dir)
    again = ["citeflow", "publish", report, "--model", model, "--out", out_dir, "--data-root", root]
    hint = f"all results are on disk; to tell MLflow later: {shlex.join(map(str, again))}"
    with failures_told(uri, hint), quiet():
        from citeflow.reporting.mlflow.server import tell

        run_id = tell(account, uri)
    log("publish", "told MLflow", server=shown(uri), run=run_id)
