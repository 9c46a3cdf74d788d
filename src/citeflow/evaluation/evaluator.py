"""The verb evaluate: metrics of a model and of the training-free baselines, as OGB ranks, and the curves behind them.

Legend: N papers, P held-out citations, K candidates.
"""

import collections
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from citeflow import files
from citeflow.data.citation_graph import HeldOut
from citeflow.errors import ConfigError
from citeflow.evaluation import metrics, trained_model
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.scoring import pieces_of, score_candidates, structural_features_of
from citeflow.evaluation.trained_model import TrainedModel
from citeflow.graph.csr import Csr
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.structural import BASELINES, StructuralFeatures
from citeflow.utils.logging import log
from citeflow.utils.system import num_cores

KIND = "EvalReport"
NEGATIVES_PER_POSITIVE = 10
"""For AUC and the ROC curve; accuracy takes one."""
PROGRESS_EVERY_S = 10.0

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What is kept of the scores of a split, piece by piece, so that memory does not grow with the candidates."""

    rank_P: Tensor
    positive_P: Tensor
    negative_PK: Tensor
    """Only the first NEGATIVES_PER_POSITIVE of each source."""
    num_negatives: int
    """How many there were of each."""


def evaluate_model(
    model_dir: Path, *, graph_dir: Path
) -> tuple[files.Json, files.Json, files.Json]:
    """Score the held-out citations.

    Returns:
        report.json without its stages, curves.json, and the digests of what they were made from.

    Raises:
        ConfigError: the model was trained on another graph.
    """
    model, graph = trained_model.load(model_dir), PreparedGraph.open(graph_dir)
    if model.manifest.inputs["PreparedGraph"] != graph.manifest.sha256:
        raise ConfigError(
            "the model was trained on another graph", graph_dir, hint="give the graph of its run"
        )
    structural = structural_features_of(graph, model.config.model)
    embedding_NH = embed_all(model.predictor, graph)

    def score(source_P: np.ndarray, candidate_PK: np.ndarray) -> np.ndarray:
        return score_candidates(model.predictor, embedding_NH, structural, source_P, candidate_PK)

    scored = {part: _score(score, getattr(graph, part), part) for part in ("valid", "test")}
    report = _report(model, graph, scored, _baselines(structural, graph.test))
    inputs = {"TrainedModel": model.manifest.sha256, "PreparedGraph": graph.manifest.sha256}
    return report, _curves(model, graph, scored["test"]), inputs


def _score(score: Score, held_out: HeldOut, part: str) -> Scored:
    def kept_of(source_P: np.ndarray, candidate_PK: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        score_PK = torch.from_numpy(score(source_P, candidate_PK))
        positive_P, negative_PK = score_PK[:, 0], score_PK[:, 1:]
        few_PK = negative_PK[:, :NEGATIVES_PER_POSITIVE]
        return metrics.ranks(positive_P, negative_PK), positive_P.clone(), few_PK.clone()

    rank_P, positive_P, negative_PK = map(
        torch.cat, zip(*_told(kept_of, held_out, part), strict=True)
    )
    return Scored(
        rank_P=rank_P,
        positive_P=positive_P,
        negative_PK=negative_PK,
        num_negatives=held_out.negative_PK.shape[1],
    )


def _baselines(structural: StructuralFeatures, held_out: HeldOut) -> dict[str, dict[str, float]]:
    """Test MRR of the training-free predictors."""

    def ranks_of(source_P: np.ndarray, candidate_PK: np.ndarray) -> tuple[Tensor, ...]:
        named = (
            (name, torch.from_numpy(score_PK))
            for name, score_PK in structural.baselines(source_P, candidate_PK)
        )
        rank_of = {name: metrics.ranks(score_PK[:, 0], score_PK[:, 1:]) for name, score_PK in named}
        return tuple(rank_of[name] for name in BASELINES)

    ranks = zip(*_told(ranks_of, held_out, "baselines"), strict=True)
    return {
        name: {"mrr": metrics.summarize(torch.cat(parts))["mrr"]}
        for name, parts in zip(BASELINES, ranks, strict=True)
    }


def _told(
    of_piece: Callable[[np.ndarray, np.ndarray], Result], held_out: HeldOut, part: str
) -> Iterator[Result]:
    """Results piece by piece, in order, with a line of progress now and then."""
    told, done = time.monotonic(), 0
    pieces = (
        (len(source_P), source_P, candidate_PK) for source_P, candidate_PK in pieces_of(held_out)
    )
    for count, result in _in_threads(lambda count, *piece: (count, of_piece(*piece)), pieces):
        yield result
        done += count
        if time.monotonic() - told > PROGRESS_EVERY_S:
            told = time.monotonic()
            log("evaluate", part, done=done, of=len(held_out.source_P))


def _in_threads(
    function: Callable[..., Result], arguments: Iterable[tuple[Any, ...]]
) -> Iterator[Result]:
    """Call a function with some arguments, as many calls at a time as torch may use cores, and yield results in order.

    Few calls are waiting or told at a time, so that memory does not grow with their number.
    """
    threads = min(torch.get_num_threads(), num_cores())
    waiting: collections.deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for each in arguments:
            waiting.append(pool.submit(function, *each))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _report(
    model: TrainedModel,
    graph: PreparedGraph,
    scored: dict[str, Scored],
    baselines: dict[str, dict[str, float]],
) -> files.Json:
    return {
        "dataset": graph.facts["dataset"],
        "num_papers": graph.num_papers,
        "num_citations": graph.facts["num_citations"],
        "facts": graph.facts,
        "config": model.config.to_dict(),
        "versions": model.details["versions"],
        **{part: _metrics(model, result) for part, result in scored.items()},
        "baselines": baselines,
        "train": model.details["train"],
    }


def _metrics(model: TrainedModel, scored: Scored) -> dict[str, float]:
    positive_P = model.calibration(scored.positive_P)
    return {
        **metrics.summarize(scored.rank_P),
        "accuracy": metrics.accuracy(positive_P, model.calibration(scored.negative_PK[:, 0])),
        "auc": metrics.auc(scored.positive_P, scored.negative_PK.flatten()),
        "num_positives": len(positive_P),
        "num_negatives": scored.num_negatives,
    }


def _curves(model: TrainedModel, graph: PreparedGraph, scored: Scored) -> files.Json:
    positive_P, negative_PK = (
        model.calibration(scored.positive_P),
        model.calibration(scored.negative_PK),
    )
    return {
        "history": model.history,
        "evaluations": model.evaluations,
        "resources": model.resources,
        "roc": metrics.roc_curve(positive_P, negative_PK.flatten()),
        "confusion": metrics.confusion(positive_P, negative_PK[:, 0]),
        "degrees": {
            "references": _degrees(graph.references),
            "citations": _degrees(graph.citations),
        },
        "mrr_by_year": _mrr_by_year(graph, scored.rank_P),
        "ranks": _rank_bins(scored.rank_P),
    }


def _degrees(csr: Csr) -> list[list[int]]:
    """Pairs of a degree and how many papers have it."""
    degree, count = np.unique(csr.degree_N, return_counts=True)
    return [[int(d), int(n)] for d, n in zip(degree, count, strict=True)]


def _mrr_by_year(graph: PreparedGraph, rank_P: Tensor) -> list[dict[str, Any]]:
    if graph.day_N is None:
        return []
    year_P = (
        graph.day_N[graph.test.source_P].astype("datetime64[D]").astype("datetime64[Y]").astype(int)
        + 1970
    )
    reciprocal_P = 1 / rank_P.double().numpy()
    years = np.unique(year_P)
    return [
        {
            "year": int(year),
            "mrr": float(reciprocal_P[year_P == year].mean()),
            "num": int((year_P == year).sum()),
        }
        for year in years
    ]


def _rank_bins(rank_P: Tensor) -> list[list[int]]:
    """How many positives have a rank up to 1, 2, 5, 10, ... and above the bin before."""
    uppers = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9]
    place_P = np.searchsorted(uppers, rank_P.numpy())
    counts = np.bincount(place_P, minlength=len(uppers))
    return [
        [upper, int(count)]
        for upper, count in zip(uppers, counts, strict=True)
        if upper < 10**9 or count
    ]
