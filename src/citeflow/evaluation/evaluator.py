"""The stage evaluate: scores of a model and of training-free baselines, and the curves behind them.

Legend: P held-out citations.
"""

from pathlib import Path

import numpy as np
from pydantic import JsonValue
from torch import Tensor

from citeflow import files
from citeflow.errors import ConfigError
from citeflow.evaluation import metrics, protocols, trained_model
from citeflow.evaluation.calibration import Calibration
from citeflow.evaluation.protocols import SplitScores
from citeflow.evaluation.trained_model import TrainedModel
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.paths import RunPaths
from citeflow.report import (
    CURVES,
    REPORT,
    BaselineScores,
    Curves,
    Report,
    RocCurve,
    Scores,
    StageCost,
    YearScore,
    stage_costs,
)
from citeflow.utils.logging import log
from citeflow.utils.usage import StageMeter

KIND = "EvalReport"
RANK_BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper bounds of the bins of the ranks; those above the last share one more, if there are any."""
REST = 10**9
"""Upper bound of that one."""


def evaluate(model: Path, *, graph: Path, run: RunPaths, runs_code: bool = False) -> Path:
    """Rank the held-out citations, and write the EvalReport of a run.

    Args:
        model: a TrainedModel.
        graph: the PreparedGraph that it was trained on.
        run: the run that the report belongs to.
        runs_code: as `trained_model.load`.

    Returns:
        `run.report`: report.json and curves.json.

    Raises:
        ConfigError: the model was trained on another graph.
    """
    meter = StageMeter()
    trained = trained_model.load(model, runs_code=runs_code)
    prepared = PreparedGraph.open(graph)
    if trained.manifest.inputs["PreparedGraph"] != prepared.manifest.sha256:
        raise ConfigError(
            "the model was trained on another graph", graph, hint="give the graph of its run"
        )
    measured = protocols.measure(trained, prepared)
    figures = {
        name: protocols.scores(ranks, of=len(prepared.test.source_P), seed=trained.config.data.seed)
        for name, ranks in measured.protocols.items()
    }
    report = Report(
        dataset=prepared.facts.dataset,
        num_papers=prepared.num_papers,
        num_citations=prepared.facts.num_citations,
        facts=prepared.facts.model_dump(mode="json"),
        config=trained.config,
        versions=trained.details.versions,
        valid=_scores(measured.valid, trained.calibration),
        test=_scores(measured.test, trained.calibration),
        protocols=figures,
        baselines={
            name: BaselineScores(mrr=each.mrr) for name, each in figures["ogb"].baselines.items()
        },
        train=trained.details.train,
        stages={**stage_costs(trained.manifest), "evaluate": StageCost(**meter.cost())},
    )
    curves = _curves(trained, prepared, measured.test)
    _write(report, curves, run.report, trained=trained, graph=prepared)
    doubt = {"too_few_citations": report.test.num_positives} if report.is_tiny else {}
    mrr = {f"{name}_mrr": f"{each.mrr:.4f}" for name, each in figures.items() if name != "ogb"}
    log("evaluate", "done", test_mrr=f"{report.test.mrr:.4f}", **mrr, **doubt, path=run.report)
    return run.report


def _write(
    report: Report, curves: Curves, folder: Path, *, trained: TrainedModel, graph: PreparedGraph
) -> None:
    stages: JsonValue = {
        name: cost.model_dump(exclude_none=True) for name, cost in report.stages.items()
    }
    with files.new_directory(folder) as work:
        files.write_json(work / REPORT, report.to_json())
        files.write_json(work / CURVES, curves.model_dump())
        files.write_manifest(
            work,
            KIND,
            inputs={
                "TrainedModel": trained.manifest.sha256,
                "PreparedGraph": graph.manifest.sha256,
            },
            facts={"test_mrr": report.test.mrr, "stages": stages},
        )


def _scores(split: SplitScores, calibration: Calibration) -> Scores:
    positive_P = calibration(split.positive_P)
    figures = metrics.mrr_and_hits(split.rank_P)
    return Scores(
        **figures,
        accuracy=metrics.accuracy(positive_P, calibration(split.negative_PK[:, 0])),
        # AUC is of the raw logits: calibration keeps their order, but may round two to one.
        auc=metrics.auc(split.positive_P, split.negative_PK.flatten()),
        num_positives=len(positive_P),
        num_negatives=split.num_negatives,
    )


def _curves(trained: TrainedModel, graph: PreparedGraph, test: SplitScores) -> Curves:
    positive_P = trained.calibration(test.positive_P)
    negative_PK = trained.calibration(test.negative_PK)
    return Curves(
        history=trained.history,
        evaluations=trained.evaluations,
        resources=trained.resources,
        roc=RocCurve(**metrics.roc_curve(positive_P, negative_PK.flatten())),
        confusion=metrics.confusion(positive_P, negative_PK[:, 0]),
        degrees={
            "references": _degree_counts(graph.references),
            "citations": _degree_counts(graph.citations),
        },
        mrr_by_year=_mrr_by_year(graph, test.rank_P),
        ranks=_rank_counts(test.rank_P),
    )


def _degree_counts(csr: Csr) -> list[tuple[int, int]]:
    """Pairs of a degree and how many papers have it."""
    degree, count = np.unique(csr.degree_N, return_counts=True)
    return list(zip(degree.tolist(), count.tolist(), strict=True))


def _mrr_by_year(graph: PreparedGraph, rank_P: Tensor) -> list[YearScore]:
    if graph.day_N is None:
        return []
    date_P = graph.day_N[graph.test.source_P].astype("datetime64[D]")
    year_P = date_P.astype("datetime64[Y]").astype(int) + 1970
    reciprocal_P = 1 / rank_P.double().numpy()
    return [
        YearScore(
            year=year,
            mrr=float(reciprocal_P[year_P == year].mean()),
            num=int((year_P == year).sum()),
        )
        for year in np.unique(year_P).tolist()
    ]


def _rank_counts(rank_P: Tensor) -> list[tuple[int, int]]:
    """Pairs of the upper bound of a bin and how many positives have a rank in it."""
    bins = [*RANK_BINS, REST]
    counts = np.bincount(np.searchsorted(bins, rank_P.numpy()), minlength=len(bins)).tolist()
    pairs = list(zip(bins, counts, strict=True))
    return pairs if counts[-1] else pairs[:-1]
