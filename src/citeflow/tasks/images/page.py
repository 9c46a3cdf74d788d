"""The report of an image run as tables, plots, page and text.

Legend: K classes, H height, W width, C channels.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from citeflow.report import WARNING, Curves
from citeflow.reporting import formatting, markdown, report_plots, tables
from citeflow.reporting.html import Section, Tile, render_page, run_sections
from citeflow.reporting.plots import (
    COLOURS,
    HEIGHT,
    Plot,
    columns,
    draw,
    draw_axes,
    legend_below,
    time_line,
)
from citeflow.reporting.tables import Table
from citeflow.tasks.images.report import Errors, ImageReport
from citeflow.tasks.images.training import NAMES

SAMPLES = NAMES.samples
MAX_SHOWN_CLASSES = 40
"""Of the confusion matrix and the sample grid; the table has all."""
MAX_NUMBERED = 12
"""Classes up to which the cells of the confusion matrix have numbers."""
COLUMNS = 6
"""Errors side by side."""
MAX_LABEL = 14


def headline(report: ImageReport) -> str:
    """Summarize the result in one sentence or two."""
    test = report.test
    low, high = test.accuracy_ci
    best = max(report.baselines.values(), default=None)
    against = "" if best is None else f"; the best baseline has {formatting.score(best)}"
    doubt = [text for text in report.facts.remarks if text.startswith(WARNING)]
    return " ".join(
        [
            f"Test accuracy {formatting.score(test.accuracy)} "
            f"(95 %: {formatting.score(low)} to {formatting.score(high)}) "
            f"on {formatting.plural(test.num_images, 'image')}{against}.",
            *doubt,
        ]
    )


def score_table(report: ImageReport) -> Table:
    """Tabulate the figures on validation and test."""
    rows = [
        (label, formatting.score(getattr(report.valid, name)), formatting.score(value))
        for name, label in (("accuracy", "Accuracy"), ("macro_f1", "Macro F1"), ("loss", "Loss"))
        for value in [getattr(report.test, name)]
    ]
    counts = (formatting.count(report.valid.num_images), formatting.count(report.test.num_images))
    return Table(
        title="Scores",
        header=("Metric", "Validation", "Test"),
        rows=[*rows, ("Images", *counts)],
        remark="Macro F1 is the mean over the classes. Loss: cross entropy in nats.",
    )


def baseline_table(report: ImageReport) -> Table:
    """Tabulate the test accuracy of the model and of the baselines."""
    accuracies = {formatting.MODEL: report.test.accuracy, **report.baselines}
    rows = [
        (name.capitalize(), formatting.score(value))
        for name, value in sorted(accuracies.items(), key=lambda item: -item[1])
    ]
    return Table(
        title="Against the baselines",
        header=("Method", "Test accuracy"),
        rows=rows,
        remark="The baselines need no training: the class whose mean image is nearest, and always "
        "the same class.",
        strong=frozenset({formatting.MODEL.capitalize()}),
    )


def class_table(report: ImageReport) -> Table:
    """Tabulate precision, recall and F1 of each class on the test, worst first."""
    rows = [
        (
            each.name,
            formatting.score(each.precision),
            formatting.score(each.recall),
            formatting.score(each.f1),
            formatting.count(each.num_images),
        )
        for each in sorted(report.classes, key=lambda each: each.f1)
    ]
    return Table(
        title="Classes, worst first",
        header=("Class", "Precision", "Recall", "F1", "Images"),
        rows=rows,
    )


def dataset_table(report: ImageReport) -> Table:
    """Tabulate what was read and how it was split."""
    facts = report.facts
    size = f"{facts.width} x {facts.height}, {'gray' if facts.channels == 1 else 'RGB'}"
    split = {"own": "the dataset's own test", "random": "random, a share of each class"}
    fewest, most = min(facts.images_per_class), max(facts.images_per_class)
    rows = [
        ("Images", formatting.count(facts.num_images)),
        ("Size in pixels", size),
        ("Classes", formatting.count(len(facts.classes))),
        ("Images of a class", f"{formatting.count(fewest)} to {formatting.count(most)}"),
        ("Trained on", formatting.share(facts.num_train, facts.num_images)),
        ("Held out for validation", formatting.share(facts.num_valid, facts.num_images)),
        ("Held out for the test", formatting.share(facts.num_test, facts.num_images)),
        ("Test images that are training images", formatting.count(facts.test_in_train)),
        ("Split", split[facts.split]),
    ]
    return Table(title="Dataset", header=("Fact", "Value"), rows=rows)


def text_tables(report: ImageReport) -> list[Table]:
    """Return the tables of the summary."""
    return [
        score_table(report),
        baseline_table(report),
        class_table(report),
        tables.training(report, SAMPLES),
        tables.goodput(report),
        tables.stages(report),
    ]


def summary(report: ImageReport) -> str:
    """Render result and tables as Markdown."""
    title = f"# {markdown.escape(report.dataset)}\n\n{markdown.escape(headline(report))}\n"
    parts = [title, *(markdown.render(table) for table in text_tables(report) if table.rows)]
    if report.facts.remarks:
        remarks = "\n".join(f"- {markdown.escape(text)}" for text in report.facts.remarks)
        parts.append(f"## The dataset\n\n{remarks}\n")
    return "\n".join(parts)


def table(report: ImageReport) -> str:
    """Render the figures in aligned columns, for the end of a command."""
    shown = [tables.stages(report), class_table(report), baseline_table(report)]
    last = f"{' '.join(report.dataset.split())}: {headline(report)}"
    return "\n\n".join([*(markdown.align(part) for part in shown if part.rows), last]) + "\n"


def render(
    report: ImageReport,
    curves: Curves,
    errors: Errors,
    *,
    error_images: np.ndarray,
    sample_images: np.ndarray,
) -> str:
    """Render the page of a run.

    Args:
        report: content of report.json.
        curves: content of curves.json.
        errors: content of errors.json.
        error_images: their images [n, H, W, C].
        sample_images: images of each class [K, n, H, W, C].
    """
    figures = [
        accuracy_plot(report, curves),
        loss_plot(curves),
        confusion_plot(report, curves),
        report_plots.throughput(curves, SAMPLES),
        report_plots.cores(curves),
        report_plots.memory(curves),
    ]
    pictures = [
        samples_plot(report, sample_images),
        errors_plot(report, errors, error_images),
    ]
    drawn = [*pictures, *figures]
    sections = [
        Section(
            title="Results",
            rows=[[score_table(report), baseline_table(report)], [class_table(report)]],
        ),
        Section(title="Pictures", rows=[[plot] for plot in pictures if plot.svg]),
        Section(
            title="Figures",
            rows=[[plot for plot in figures if plot.svg]],
            notes=[f"{plot.title}: {plot.caption}" for plot in drawn if not plot.svg],
        ),
        *run_sections(
            report,
            dataset_table(report),
            tables.training(report, SAMPLES),
            report.facts.remarks,
        ),
    ]
    return render_page(
        report.dataset,
        sections,
        kind="citeflow image run report",
        headline=headline(report),
        tiles=_tiles(report),
    )


def _tiles(report: ImageReport) -> list[Tile]:
    test, train = report.test, report.train
    low, high = test.accuracy_ci
    best, accuracy = max(report.baselines.items(), key=lambda item: item[1])
    return [
        Tile(
            label="Test accuracy",
            value=formatting.score(test.accuracy),
            note=f"95 %: {low:.4f} to {high:.4f}",
        ),
        Tile(label="Best baseline", value=formatting.score(accuracy), note=best),
        Tile(label="Macro F1", value=formatting.score(test.macro_f1), note="mean of the classes"),
        Tile(
            label="Errors",
            value=formatting.count(report.num_errors),
            note=f"of {formatting.plural(test.num_images, 'test image')}",
        ),
        Tile(
            label="Training time",
            value=formatting.duration(train.seconds),
            note=formatting.plural(train.workers, "worker"),
        ),
        Tile(
            label="Throughput",
            value=formatting.rate(train.positives_per_s),
            note="images trained on",
        ),
    ]


def accuracy_plot(report: ImageReport, curves: Curves) -> Plot:
    """Draw the validation accuracy over time, and the test accuracy as a dashed line."""
    title = "Validation accuracy during training"
    seconds, value = columns(curves.evaluations, "seconds", NAMES.score)
    if not len(value):
        return Plot(title=title, caption="not drawn, as it was not measured.")

    def fill(axes: Axes) -> None:
        time_line(axes, seconds, value, label=f"Validation {value[-1]:.4f}", marker="o")
        test = report.test.accuracy
        label = f"Test {test:.4f}"
        axes.axhline(test, color=COLOURS["vermillion"], dashes=(5, 2), label=label)
        axes.set(ylabel="Accuracy")
        legend_below(axes)

    return draw_axes(
        "accuracy",
        fill,
        title=title,
        caption="Share of images whose most probable class is theirs. A curve that still rises "
        "asks for longer training.",
        summary=f"Validation accuracy goes from {value[0]:.4f} to {value[-1]:.4f}.",
        height=HEIGHT + 0.2,
    )


def loss_plot(curves: Curves) -> Plot:
    """Draw the loss of training and validation over time."""
    title = "Loss during training"
    seconds, value = columns(curves.history, "seconds", "loss")
    valid_seconds, valid = columns(curves.evaluations, "seconds", "valid_loss")
    if not len(value):
        return Plot(title=title, caption="not drawn, as no step was recorded.")

    def fill(axes: Axes) -> None:
        time_line(axes, seconds, value, colour="sky", label="Training, single steps")
        if len(valid):
            time_line(
                axes, valid_seconds, valid, colour="vermillion", marker="o", label="Validation"
            )
        axes.set(ylabel="Cross entropy", ylim=(0, None))
        legend_below(axes)

    return draw_axes(
        "loss",
        fill,
        title=title,
        caption="A validation loss that rises while the training loss falls is overfitting.",
        summary=f"Training loss goes from {value[0]:.3g} to {value[-1]:.3g}.",
        height=HEIGHT + 0.2,
    )


def confusion_plot(report: ImageReport, curves: Curves) -> Plot:
    """Draw the confusion matrix of the test, each row by its shares."""
    title = "Confusion matrix of the test"
    names = [_short(name) for name in report.facts.classes]
    if len(names) > MAX_SHOWN_CLASSES:
        return Plot(title=title, caption=f"not drawn, as there are {len(names)} classes.")
    count_KK = np.array(curves.confusion)
    share_KK = count_KK / np.maximum(count_KK.sum(axis=1, keepdims=True), 1)

    def fill(axes: Axes) -> None:
        for row, column in np.argwhere(count_KK > 0).tolist():
            share = share_KK[row, column]
            colour = COLOURS["blue" if row == column else "vermillion"]
            at = (column - 0.5, row - 0.5)
            # The smallest share is still to be seen.
            alpha = 0.12 + 0.73 * float(share) ** 0.6
            axes.add_patch(Rectangle(at, 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
            if len(names) <= MAX_NUMBERED:
                text = str(count_KK[row, column])
                axes.text(column, row, text, ha="center", va="center", fontsize=8)
        ticks = range(len(names))
        axes.set_xticks(ticks, names, rotation=60, ha="right", fontsize=8.5)
        axes.set_yticks(ticks, names, fontsize=8.5)
        axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="Predicted class", ylabel="True class")
        axes.grid(visible=False)

    return draw_axes(
        "confusion",
        fill,
        title=title,
        caption="Numbers of images; a row is a class, and the darker a cell the larger its share "
        "of the row. Blue is right, red is confused.",
        summary=f"{report.num_errors} of {report.test.num_images} test images are confused.",
        height=HEIGHT + 1.3,
    )


def samples_plot(report: ImageReport, image_KNHWC: np.ndarray) -> Plot:
    """Show some training images of each class, a row each."""
    title = "Training images of each class"
    shown = image_KNHWC[:MAX_SHOWN_CLASSES]
    rows = np.concatenate([_side_by_side(each) for each in shown])
    height = rows.shape[0] / len(shown)

    def fill(axes: Axes) -> None:
        _show(axes, rows)
        names = [_short(name) for name in report.facts.classes[: len(shown)]]
        axes.set_yticks([(row + 0.5) * height - 0.5 for row in range(len(shown))], names)
        axes.tick_params("y", length=0, labelcolor=COLOURS["ink"], labelsize=8.5)

    left_out = len(image_KNHWC) - len(shown)
    more = f" {left_out} more classes are not shown." if left_out else ""
    return draw_axes(
        "samples",
        fill,
        title=title,
        caption=f"At even distances in the dataset.{more}",
        summary=f"{len(shown)} rows of images.",
        height=max(1.0, 5.0 * rows.shape[0] / rows.shape[1]),
    )


def errors_plot(report: ImageReport, errors: Errors, image_NHWC: np.ndarray) -> Plot:
    """Show the errors in which the model was most confident."""
    title = "Misclassified test images"
    if not errors.shown:
        return Plot(title=title, caption="not drawn, as there is none.")
    num_rows = -(-len(errors.shown) // COLUMNS)

    def fill(figure: Figure) -> None:
        all_axes = figure.subplots(num_rows, COLUMNS, squeeze=False).flatten()
        for axes in all_axes:
            axes.set_axis_off()
        for axes, error, image in zip(all_axes, errors.shown, image_NHWC, strict=False):
            _show(axes, image)
            text = f"{_short(error.true)}\nas {_short(error.predicted)}\n{error.probability:.2f}"
            axes.set_title(text, fontsize=6.5, pad=2)

    return draw(
        "errors",
        fill,
        title=title,
        caption=f"The {len(errors.shown)} of {report.num_errors} that the model was most sure of: "
        "true class, predicted class and its probability.",
        summary="; ".join(f"{each.true} as {each.predicted}" for each in errors.shown),
        height=1.2 * num_rows,
    )


def _side_by_side(image_NHWC: np.ndarray) -> np.ndarray:
    """Join images to one row, with a line of pixels between them and below."""
    padded = np.pad(image_NHWC, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return np.concatenate(list(padded), axis=1)


def _show(axes: Axes, image_HWC: np.ndarray) -> None:
    gray = image_HWC.shape[2] == 1
    pixels = image_HWC[..., 0] if gray else image_HWC
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="none")
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"
