"""A run, drawn once for all tests."""

import pytest
from digit_runs import classified, digits  # noqa: F401
from mlflow_server import no_variables, server  # noqa: F401
from sample_run import sample_curves, sample_report

from citeflow.report import Curves, Report
from citeflow.reporting import html, plots, report_plots
from citeflow.reporting.publish import publish


@pytest.fixture(scope="session")
def report() -> Report:
    return sample_report()


@pytest.fixture(scope="session")
def curves() -> Curves:
    return sample_curves()


@pytest.fixture(scope="session")
def drawn(report, curves) -> dict[str, plots.Plot]:
    """Every plot of the run by its title."""
    return {plot.title: plot for plot in report_plots.draw_report(report, curves)}


@pytest.fixture(scope="session")
def page(report, curves, drawn) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_plots, "draw_report", lambda *_: list(drawn.values()))
        return html.render_report(report, curves)


@pytest.fixture(scope="session")
def out(trained, tmp_path_factory):
    """The folder to which a real run was published."""
    folder = tmp_path_factory.mktemp("published") / "out"
    publish(trained.report, model=trained.model, run=trained.run, out=folder)
    return folder
