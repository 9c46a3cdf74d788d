"""The stage evaluate: scores of a model and of training-free baselines, and the curves behind them.

Legend: N papers, P held-out citations, K candidates.
"""

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from citeflow import files
from citeflow.data.citation_graph import HeldOut
from citeflow.errors import ConfigError
from citeflow.evaluation import metrics, trained_model
from citeflow.evaluation.calibration import Calibration
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import (
    build_structural_features,
    iter_chunks,
    score_candidates,
)
from citeflow.evaluation.trained_model import TrainedModel
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.structural import BASELINES, StructuralFeatures
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
from citeflow.utils.progress import log_progress
from citeflow.utils.system import num_cores
from citeflow.utils.usage import StageMeter

KIND = "EvalReport"
NEGATIVES_PER_POSITIVE = 10
"""For AUC and the ROC curve; accuracy takes one."""
RANK_BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Upper bounds of the bins of the ranks; those above the last share one more, if there are any."""
REST = 10**9
"""Upper bound of that one."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitScores:
    """Scores of a split, reduced so that memory does not grow with the candidates."""

    rank_P: Tensor
    positive_P: Tensor
    negative_PK: Tensor
    """Only the first NEGATIVES_PER_POSITIVE of each source."""
    num_negatives: int
    """Candidates that each positive was ranked against."""


def evaluate(model: Path, *, graph: Path, run: RunPaths) -> Path:
    """Rank the held-out citations, and write the EvalReport of a run.

    Args:
        model: a TrainedModel.
        graph: the PreparedGraph that it was trained on.
        run: the run that the report belongs to.

    Returns:
        `run.report`: report.json and curves.json.

    Raises:
        ConfigError: the model was trained on another graph.
    """
    meter = StageMeter()
    trained = trained_model.load(model)
    prepared = PreparedGraph.open(graph)
    if trained.manifest.inputs["PreparedGraph"] != prepared.manifest.sha256:
        raise ConfigError(
            "the model was trained on another graph", graph, hint="give the graph of its run"
        )
    structural = build_structural_features(prepared, trained.config.model)
    with log_progress("evaluate", "embedding the papers"):
        embedding_NH = embed_all(trained.model, prepared)

    def score(source_P: np.ndarray, candidate_PK: np.ndarray) -> Tensor:
        return torch.from_numpy(
            score_candidates(trained.model, embedding_NH, structural, source_P, candidate_PK)
        )

    valid = _score_split(score, prepared.valid, "valid")
    test = _score_split(score, prepared.test, "test")
    report = Report(
        dataset=prepared.facts.dataset,
        num_papers=prepared.num_papers,
        num_citations=prepared.facts.num_citations,
        facts=prepared.facts.model_dump(mode="json"),
        config=trained.config,
        versions=trained.details.versions,
        valid=_scores(valid, trained.calibration),
        test=_scores(test, trained.calibration),
        baselines=_score_baselines(structural, prepared.test),
        train=trained.details.train,
        stages={**stage_costs(trained.manifest), "evaluate": StageCost(**meter.cost())},
    )
    curves = _curves(trained, prepared, test)
    _write(report, curves, run.report, trained=trained, graph=prepared)
    doubt = {"too_few_citations": report.test.num_positives} if report.is_tiny else {}
    log("evaluate", "done", test_mrr=f"{report.test.mrr:.4f}", **doubt, path=run.report)
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


def _score_split(
    score: Callable[[np.ndarray, np.ndarray], Tensor], held_out: HeldOut, name: str
) -> SplitScores:
    def score_chunk(
        source_P: np.ndarray, candidate_PK: np.ndarray
    ) -> tuple[Tensor, Tensor, Tensor]:
        score_PK = score(source_P, candidate_PK)
        positive_P = score_PK[:, 0]
        negative_PK = score_PK[:, 1:]
        # Copies: views would keep the scores of all candidates.
        few_PK = negative_PK[:, :NEGATIVES_PER_POSITIVE].clone()
        return metrics.rank_positives(positive_P, negative_PK), positive_P.clone(), few_PK

    chunks = zip(*_map_chunks(score_chunk, held_out, name), strict=True)
    rank_P, positive_P, negative_PK = (torch.cat(chunk) for chunk in chunks)
    return SplitScores(
        rank_P=rank_P,
        positive_P=positive_P,
        negative_PK=negative_PK,
        num_negatives=held_out.negative_PK.shape[1],
    )


def _score_baselines(
    structural: StructuralFeatures, held_out: HeldOut
) -> dict[str, BaselineScores]:
    """Score the training-free predictors on a split."""

    def rank_chunk(source_P: np.ndarray, candidate_PK: np.ndarray) -> dict[str, Tensor]:
        ranks = {}
        for name, score_PK in structural.baselines(source_P, candidate_PK):
            score = torch.from_numpy(score_PK)
            ranks[name] = metrics.rank_positives(score[:, 0], score[:, 1:])
        return ranks

    chunks = list(_map_chunks(rank_chunk, held_out, "baselines"))
    return {
        name: BaselineScores(
            mrr=metrics.mrr_and_hits(torch.cat([chunk[name] for chunk in chunks]))["mrr"]
        )
        for name in BASELINES
    }


def _map_chunks(
    function: Callable[[np.ndarray, np.ndarray], Result], held_out: HeldOut, name: str
) -> Iterator[Result]:
    """Call a function with chunks of a split, and yield its results in order.

    As many calls run at a time as torch may use cores, each of them on one. Few are waiting or done
    at a time, so that memory does not grow with their number; `ThreadPoolExecutor.map` would submit
    all.
    """
    threads = min(torch.get_num_threads(), num_cores())
    waiting: collections.deque[tuple[int, Future[Result]]] = collections.deque()
    with (
        ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        log_progress("evaluate", f"ranking, {name}", of=len(held_out.source_P)) as progress,
    ):
        chunks = iter_chunks(held_out)
        while True:
            for chunk in chunks:
                waiting.append((len(chunk[0]), pool.submit(function, *chunk)))
                if len(waiting) > threads:
                    break
            if not waiting:
                return
            count, future = waiting.popleft()
            yield future.result()
            progress.done += count


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
