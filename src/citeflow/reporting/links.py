"""Links from the run page to where a run is shown: TensorBoard, its report, MLflow.

Their base URLs come from the environment, where a ConfigMap may have put them: they are the same
for all runs of an installation, and no part of what a model results from.
"""

import os
from pathlib import Path
from urllib.parse import quote

from citeflow.paths import RunPaths
from citeflow.utils.logging import redact_url

CONFIG_MAP = "citeflow-links"
"""ConfigMap whose keys are the variables; it may be missing, and so may each key."""

TENSORBOARD = "CITEFLOW_TENSORBOARD_URL"
REPORTS = "CITEFLOW_REPORTS_URL"
MLFLOW = "CITEFLOW_MLFLOW_URL"

VARIABLES = {TENSORBOARD: "TensorBoard", REPORTS: "Report page", MLFLOW: "MLflow"}
"""Variables with a base URL, and the names of what is there."""


def find_links(run: RunPaths, out: Path) -> dict[str, str]:
    """Return the links of a run by their names; none where there is no base URL.

    Args:
        run: the run.
        out: folder that it was published to. The web server has that of a run, not of a trial.
    """
    name = quote(run.name, safe="")
    pages = {TENSORBOARD: f"/?runFilter={name}#timeseries", MLFLOW: "/"}
    if out == run.published and not run.is_trial:
        pages[REPORTS] = f"/{name}/{out.name}/report.html"
    links = {}
    for variable, title in VARIABLES.items():
        base = redact_url(os.environ.get(variable, "")).rstrip("/")
        if variable in pages and base.startswith(("http://", "https://")):
            links[title] = quote(base, safe=":/[]%") + pages[variable]
    return links
