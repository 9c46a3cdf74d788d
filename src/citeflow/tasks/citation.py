"""The citation task: link prediction in a citation graph.

The modules that need torch or pyarrow are imported where they are used, so that a launcher and a
command stay small.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from citeflow import config, files
from citeflow.artifacts import TRAINED_MODEL, ClassificationMetrics
from citeflow.config import PRESETS, Config, TaskConfig
from citeflow.paths import RunPaths
from citeflow.report import Curves, Report
from citeflow.reporting import formatting, run_page
from citeflow.tasks.base import OpenTask, Settings
from citeflow.tasks.names import Criterion, Names

if TYPE_CHECKING:
    from citeflow.serving.served import Served, Service

BYTES_PER_CITATION = 120
"""Memory per citation: at the shape of ogbl-citation2, preprocess had 2.3 GB, evaluate 3.9 GB and
two workers in one step 4.9 GB."""

CURVES = {"ogb": "valid/mrr", "hard": "valid/hard_mrr", "all": "valid/hard_mrr"}
"""Curve of a training by protocol: MRR among all papers is about that among the hard ones, and no
validation tells how a training stands in `cold`."""


class CitationTask:
    """GraphSAGE link prediction; the first implementation of `Task`."""

    name = Config.task
    names = Names(score="valid_mrr", metric="MRR", samples="citations")
    config = Config
    presets = PRESETS
    models = (
        "{structural: {}, dot: {model: {predictor: dot}}, "
        "features: {model: {predictor: dot, num_layers: 0}}}"
    )
    search_space = """\
train.lr: {low: 0.002, high: 0.1, log: true}
train.num_negatives: {low: 64, high: 1024, log: true}
model.dropout: {low: 0.0, high: 0.6}
model.hidden_channels: [64, 128, 256]
model.num_layers: {low: 1, high: 3}
"""
    prepared_kind = "PreparedGraph"
    memory_hint = (
        "lower train.nodes_per_batch or model.hidden_channels, start fewer workers, or raise the "
        "limit"
    )

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets that have a name."""
        from citeflow.data.datasets import dataset_names

        return dataset_names()

    def download(self, dataset: str, *, data_root: Path, settings: TaskConfig) -> Path:
        """Bring a citation graph below the data root."""
        from citeflow.data import datasets

        assert isinstance(settings, Config)
        return datasets.download_dataset(dataset, data_root=data_root, config=settings)

    def stage_memory(self, raw: Path) -> float:
        """Return what the citations take."""
        from citeflow.data import datasets

        return BYTES_PER_CITATION * datasets.approximate_citations(raw)

    def preprocess(self, raw: Path, *, data_root: Path, settings: Settings) -> Path:
        """Make the PreparedGraph of a RawDataset."""
        from citeflow.graph.preparation import prepare

        return prepare(raw, data_root=data_root, config=config.from_dict(settings).data)

    def open(self, data: Path, settings: Settings, *, data_root: Path | None = None) -> OpenTask:
        """Map a PreparedGraph into memory."""
        from citeflow.graph.prepared import PreparedGraph
        from citeflow.tasks.citation_training import OpenCitationTask

        return OpenCitationTask(PreparedGraph.open(data), config.from_dict(settings), data_root)

    def memory_needed(
        self, data: Path, settings: Settings, workers: int, *, allowed: int | None = None
    ) -> int:
        """Estimate the peak memory of the workers of one machine together, in bytes."""
        from citeflow.graph.prepared import PreparedGraph
        from citeflow.tasks.citation_memory import estimate, measure

        shape = measure(PreparedGraph.open(data))
        return estimate(shape, config=config.from_dict(settings), workers=workers, allowed=allowed)

    def evaluate(self, model: Path, *, data: Path, run: RunPaths, runs_code: bool = False) -> Path:
        """Rank the held-out citations of the test split."""
        from citeflow.evaluation.evaluator import evaluate

        return evaluate(model, graph=data, run=run, runs_code=runs_code)

    def publish(self, report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
        """Put report, page, model and TensorBoard's logs where people look."""
        from citeflow.reporting.publish import publish

        publish(report, model=model, run=run, out=out)

    def log_to_mlflow(
        self, report: Path, *, model: Path, run: RunPaths, out: Path, is_required: bool
    ) -> None:
        """Log a published run to MLflow where that is set up."""
        from citeflow.reporting import mlflow

        mlflow.log_run(report, model=model, run=run, out=out, is_required=is_required)

    def results(self, folder: Path) -> "CitationResults":
        """Read a report of citations."""
        return CitationResults(folder)

    def criterion(self, settings: TaskConfig) -> Criterion:
        """Return the MRR of the protocol that the settings name."""
        protocol = _protocol(settings)
        is_usual = protocol == "ogb"
        return Criterion(
            name=self.names.score if is_usual else f"valid_{protocol}_mrr",
            label=formatting.in_protocol("Validation MRR", protocol),
            test_label=formatting.in_protocol("test MRR", protocol),
            curve=CURVES.get(protocol, ""),
            curve_label=formatting.in_protocol("Validation MRR", "ogb" if is_usual else "hard"),
            protocol=protocol,
        )

    def validation_score(self, model: Path, *, data: Path, settings: TaskConfig) -> float:
        """Return the MRR of the protocol that the settings name."""
        protocol = _protocol(settings)
        if protocol == "ogb":
            return files.read_manifest(model, TRAINED_MODEL).number(self.names.score)
        from citeflow.evaluation import protocols, trained_model
        from citeflow.graph.prepared import PreparedGraph

        trained = trained_model.load(model)
        return protocols.validation_mrr(trained, PreparedGraph.open(data), protocol)

    def write_index(self, model: Path, folder: Path, *, find_data: Callable[[], Path]) -> Path:
        """Embed all papers, and copy what answers need of the graph."""
        from citeflow.serving.citation.index import write_index

        return write_index(model, find_data(), folder)

    def open_index(self, folder: Path) -> "Served":
        """Map a ServingIndex of papers into memory."""
        from citeflow.serving.citation.index import ServingIndex

        return ServingIndex.open(folder)

    def service(self) -> "Service":
        """Return the routes about papers."""
        from citeflow.serving.citation.routes import SERVICE

        return SERVICE


def _protocol(settings: TaskConfig) -> str:
    assert isinstance(settings, Config)
    return settings.evaluation.protocol


class CitationResults:
    """A report of citations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = Report.read(folder)

    def test(self) -> dict[str, float]:
        """Return MRR, Hits, accuracy and AUC."""
        return self.report.test.figures()

    def metrics(self) -> dict[str, float]:
        """Return the model's figures in each protocol, and the best baseline's."""
        return run_page.evaluation_metrics(self.report)

    def log_curves(self, classification: ClassificationMetrics) -> None:
        """Show ROC curve and confusion matrix."""
        run_page.log_curves(classification, Curves.read(self.folder))

    def summary(self) -> str:
        """Return result, figures and stages as Markdown."""
        from citeflow.reporting import markdown

        return markdown.summary(self.report)

    def table(self) -> str:
        """Return the figures in aligned columns."""
        from citeflow.reporting import markdown

        return markdown.table(self.report)
