"""What the workers of one machine need at their peak, and how a lack of it is told.

Counted is what the kernel can not take back: private memory of all processes (the command, torchrun, the workers),
shared memory, and the mapped pages that are in constant use: torch's code and the citations. Features and negatives are
left out, for they are read once, piece by piece.

Legend: N papers, E citations, F features, H width; B papers, P citations, S sources and K negatives of a step;
C papers that the papers of a piece listen to.
"""

import math
from pathlib import Path

from citeflow import files
from citeflow.config import Config
from citeflow.models.predictors import PREDICTORS
from citeflow.sampling import FOLDS, PartitionSampler
from citeflow.utils.logging import log

MIB = 2**20
COMMAND = 180 * MIB
"""Of the command and of torchrun together."""

LIBRARIES = 140 * MIB
"""Code of python and torch, which all processes share."""

WORKER = 285 * MIB
"""Of a worker that has imported everything and read nothing."""

MEASURED, PIECE, PAIRS, CALIBRATED = 65_536, 32_768, 1 << 17, 10_000
"""Papers whose features are measured, papers embedded at once, pairs scored at once, sources calibrated on, as the
modules have it that do so; they import torch."""

STRUCTURAL_SOURCES = 256
"""Of `objective`."""

OUTSIDE = 0.25
"""Papers that a piece listens to outside of itself, by its links; 0.2 to 0.3 was measured."""

FLOAT = 4


def estimate(
    num_papers: int, num_features: int, num_citations: int, config: Config, workers: int
) -> int:
    """Bytes that all processes of one machine together need at their peak, measured to a fifth on CPUs."""
    shape = (num_papers, num_features or 1, num_citations)
    model = config.model
    layer = num_papers * model.hidden_channels * FLOAT
    step, embedding, scoring = (
        _step(*shape, config, workers),
        _embedding(*shape, config),
        _scoring(*shape, config),
    )
    calibration = _calibration(*shape, config)
    phases = (
        workers * _measuring(*shape),
        workers * step,
        workers * max(embedding, scoring) + min(2, max(1, model.num_layers)) * layer,
        workers * embedding + max(0, calibration - embedding) + layer,
    )
    graph = 16 * num_citations + 28 * num_papers
    return COMMAND + LIBRARIES + graph + workers * WORKER + round(max(phases))


def _measuring(num_papers: int, num_features: int, num_citations: int) -> float:
    """Mean and deviation of the features: a sample of them as float64, twice."""
    return num_papers // max(1, num_papers // MEASURED) * num_features * 16


def _step(
    num_papers: int, num_features: int, num_citations: int, config: Config, workers: int
) -> float:
    """A batch, the next one, activations and their gradients, scores, walks."""
    train, model = config.train, config.model
    parts = PartitionSampler(
        num_papers=num_papers, nodes_per_batch=train.nodes_per_batch, world_size=workers, seed=0
    ).num_partitions
    papers, citations, degree = (
        num_papers / parts,
        num_citations / parts / FOLDS,
        num_citations / num_papers,
    )
    sources = min(papers, citations)
    scores = 16 * sources * train.num_negatives
    predictor = PREDICTORS[model.predictor]
    if predictor.activations_per_pair:
        pairs = sources * predictor.limit_negatives(train.num_negatives) + citations
        scores = predictor.activations_per_pair * pairs * model.hidden_channels * FLOAT
    structural = (
        STRUCTURAL_SOURCES * (200 * train.num_negatives + 480 * degree**2)
        if predictor.uses_structural_features
        else 0
    )
    activations = (6 * model.num_layers * papers + 6 * citations) * model.hidden_channels
    return (
        FLOAT * (4 * papers * num_features + activations)
        + scores
        + structural
        + 100 * FOLDS * citations
    )


def _embedding(num_papers: int, num_features: int, num_citations: int, config: Config) -> float:
    """Values of a piece and of all that it listens to, in the first layer or in one above."""
    papers = min(num_papers, PIECE)
    heard = min(num_papers, papers * (1 + OUTSIDE * 2 * num_citations / num_papers))
    first = 3 * heard * num_features + 4 * papers * config.model.hidden_channels
    above = (
        (heard + 5 * papers) * config.model.hidden_channels if config.model.num_layers > 1 else 0
    )
    return FLOAT * max(first, above)


def _scoring(num_papers: int, num_features: int, num_citations: int, config: Config) -> float:
    """Evidence of the pairs that are scored at once."""
    pairs = min(PAIRS, config.data.holdout * num_papers * config.data.eval_negatives)
    return (
        pairs * (100 + 100 * num_citations / num_papers)
        if PREDICTORS[config.model.predictor].uses_structural_features
        else 0
    )


def _calibration(num_papers: int, num_features: int, num_citations: int, config: Config) -> float:
    """Walks from all sources at once, on the first worker."""
    if (
        not PREDICTORS[config.model.predictor].uses_structural_features
        or config.train.loss == "bce"
    ):
        return 0
    sources = min(CALIBRATED, config.data.holdout * num_papers)
    degree = num_citations / num_papers
    hubs = 1.2 * math.pow(
        num_papers / degree, 0.155
    )  # the next hop leads to often cited papers; fitted to 3 graphs
    return 140 * sources * hubs * degree**2


HINT = (
    "lower train.nodes_per_batch or model.hidden_channels, start fewer workers, or raise the limit"
)
"""What needs less memory."""


def foretell(graph: Path, config: Config, workers: int, allowed: int) -> str:
    """Compare what a training on a PreparedGraph needs with what it may use; say so where that is too little.

    Args:
        graph: a PreparedGraph.
        config: all settings.
        workers: processes that share the memory.
        allowed: bytes.

    Returns:
        How much is needed and allowed, in one line.
    """
    manifest = files.read_manifest(graph, "PreparedGraph")
    names = ("num_papers", "num_features", "num_training_citations")
    num_papers, num_features, num_citations = (int(manifest.number(name)) for name in names)
    needed = estimate(num_papers, num_features, num_citations, config, workers)
    told = advice(needed, allowed)
    if needed > allowed:
        log("train", "may run out of memory", advice=told, hint=HINT)
    return told


def advice(needed: int, allowed: int) -> str:
    """How much is needed and allowed, in one line."""
    return f"needs about {needed // MIB:,} MiB, limit {allowed // MIB:,} MiB"
