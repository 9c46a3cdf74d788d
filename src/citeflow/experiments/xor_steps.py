"""What the components of the XOR pipeline call. They need neither a volume nor torch."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet

from citeflow import files
from citeflow.artifacts import Artifact, Metrics, component_entrypoint, log_figures
from citeflow.experiments import xor
from citeflow.experiments.xor import History, Points, XorSettings
from citeflow.utils.logging import log

PLOTTED = 2_000
"""At most as many points are drawn; more hide each other."""


@component_entrypoint
def points(
    dims: int,
    train_points: int,
    test_points: int,
    epochs: int,
    hidden: int,
    lr: float,
    seed: int,
    *,
    made: Artifact,
) -> None:
    """Check all parameters, then draw the points; their artifact carries the parameters to the other steps."""
    settings = XorSettings(
        dims=dims,
        train_points=train_points,
        test_points=test_points,
        epochs=epochs,
        hidden=hidden,
        lr=lr,
        seed=seed,
    )
    drawn = xor.make_points(settings)
    x_ND = np.concatenate([each.x_ND for each in drawn])
    columns = {f"x{number}": column for number, column in enumerate(x_ND.T, start=1)}
    columns["label"] = np.concatenate([each.label_N for each in drawn])
    columns["is_test"] = np.arange(len(x_ND)) >= train_points
    files.save_table(Path(made.path), columns)
    made.metadata.update(asdict(settings))
    log("xor", "has points", dims=dims, train=train_points, test=test_points)


@component_entrypoint
def plot(made: Artifact, out_dir: str, *, page: Artifact) -> None:
    """Draw the training points of the plane."""
    from citeflow.reporting import xor as reporting

    train, _ = _read(made)
    text = reporting.render_points(
        train.x_ND[:PLOTTED], train.label_N[:PLOTTED], total=len(train.label_N)
    )
    _put(text, page, out_dir, "points.html")


@component_entrypoint
def train(made: Artifact, hidden: int, *, history: Artifact, metrics: Metrics) -> None:
    """Fit one model; its figures after each epoch are the result."""
    found = xor.train(*_read(made), XorSettings.from_dict(made.metadata), hidden=hidden)
    files.write_json(Path(history.path), asdict(found))
    log_figures(metrics, _last(found))
    log("xor", "trained", hidden=hidden, accuracy=found.test.accuracy[-1], loss=found.test.loss[-1])


@component_entrypoint
def compare(
    made: Artifact,
    without: Artifact,
    with_hidden: Artifact,
    out_dir: str,
    *,
    metrics: Metrics,
    summary: Artifact,
    page: Artifact,
) -> None:
    """Put both models beside each other."""
    from citeflow.reporting import markdown
    from citeflow.reporting import xor as reporting

    histories = [
        History.from_dict(files.read_json(Path(each.path))) for each in (without, with_hidden)
    ]
    found = xor.compare(histories, XorSettings.from_dict(made.metadata))
    for name, each in zip((xor.WITHOUT, xor.WITH), histories, strict=True):
        log_figures(metrics, {f"{name}: {what}": value for what, value in _last(each).items()})
    text = "\n".join(
        [f"# XOR\n\n{markdown.escape(found['verdict'])}\n", markdown.render(reporting.table(found))]
    )
    files.write_text(Path(summary.path), text)
    _put(reporting.render_comparison(found), page, out_dir, "xor.html")
    if out_dir:
        files.write_json(Path(out_dir) / "xor.json", found)


def _read(made: Artifact) -> tuple[Points, Points]:
    table = pyarrow.parquet.read_table(made.path)
    names = [name for name in table.column_names if name.startswith("x")]
    x_ND = np.column_stack([table[name].to_numpy() for name in names])
    label_N, is_test_N = table["label"].to_numpy(), table["is_test"].to_numpy()
    train, test = (
        Points(x_ND=x_ND[chosen], label_N=label_N[chosen]) for chosen in (~is_test_N, is_test_N)
    )
    return train, test


def _last(found: History) -> dict[str, float]:
    """Figures after the last epoch."""
    curves = {"train": found.train, "test": found.test}
    return {
        f"{name} {what}": getattr(curve, what)[-1]
        for name, curve in curves.items()
        for what in ("accuracy", "loss")
    }


def _put(text: str, page: Artifact, out_dir: str, name: str) -> None:
    """A page for the run page and, where a folder is named, for that too."""
    files.write_text(Path(page.path), text)
    if out_dir:
        files.write_text(Path(out_dir) / name, text)
