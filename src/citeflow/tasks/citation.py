"""The citation task: link prediction in a citation graph.

The modules that need torch are imported where they are used, so that a launcher stays small.
"""

from pathlib import Path

from citeflow import config
from citeflow.paths import RunPaths
from citeflow.tasks.base import OpenTask, Settings


class CitationTask:
    """GraphSAGE link prediction; the first implementation of `Task`."""

    name = "citation"
    memory_hint = (
        "lower train.nodes_per_batch or model.hidden_channels, start fewer workers, or raise the "
        "limit"
    )

    def preprocess(self, raw: Path, *, data_root: Path, settings: Settings) -> Path:
        """Make the PreparedGraph of a RawDataset."""
        from citeflow.graph.preparation import prepare

        return prepare(raw, data_root=data_root, config=config.from_dict(settings).data)

    def open(self, data: Path, settings: Settings) -> OpenTask:
        """Map a PreparedGraph into memory."""
        from citeflow.graph.prepared import PreparedGraph
        from citeflow.tasks.citation_training import OpenCitationTask

        return OpenCitationTask(PreparedGraph.open(data), config.from_dict(settings))

    def memory_needed(self, data: Path, settings: Settings, workers: int) -> int:
        """Estimate the peak memory of the workers of one machine together, in bytes."""
        from citeflow.graph.prepared import PreparedGraph
        from citeflow.tasks.citation_memory import estimate, measure

        shape = measure(PreparedGraph.open(data))
        return estimate(shape, config=config.from_dict(settings), workers=workers)

    def evaluate(self, model: Path, *, data: Path, run: RunPaths) -> Path:
        """Rank the held-out citations of the test split."""
        from citeflow.evaluation.evaluator import evaluate

        return evaluate(model, graph=data, run=run)

    def publish(self, report: Path, *, model: Path, run: RunPaths, out: Path) -> None:
        """Put report, page, model and TensorBoard's logs where people look."""
        from citeflow.reporting.publish import publish

        publish(report, model=model, run=run, out=out)
