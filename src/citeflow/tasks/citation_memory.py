"""An estimate of the memory that a training of citations needs, fitted to peaks that were measured.

It counts what the kernel cannot take back: private memory of all processes (the command, torchrun,
the workers), shared memory, and the mapped pages in constant use, which are torch's code and the
citations. Features and negatives of the evaluation are left out, as they are read once, in pieces.

Legend: N papers, E citations, F features, H hidden channels, S sources.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from citeflow.config import Config
from citeflow.evaluation import calibration, inference, scoring
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.models import path_sums, tensors
from citeflow.models.losses import LOSSES
from citeflow.models.predictors import PREDICTORS, Predictor
from citeflow.sampling import FOLDS, PartitionSampler
from citeflow.tasks import citation_objective
from citeflow.utils.large_arrays import fits_in_memory

MIB = 2**20

COMMAND = 180 * MIB
"""The command and torchrun together."""

LIBRARIES = 140 * MIB
"""Code of Python and torch, which all processes share."""

WORKER = 285 * MIB
"""A worker that has imported everything and read nothing."""

OUTSIDE_NEIGHBORS = 0.25
"""Neighbors outside of a chunk of papers, per citation of the chunk; 0.2 to 0.3 was measured."""

BATCH_WALK = 36
"""Bytes per paper on the walks from the sources of a step."""

SCORED_WALK = 80
"""Bytes per paper on the walks to candidates that are scored, four sums of float64 among them; 66
to 89 were measured."""

SAMPLE = 4096
"""Papers whose walks are counted."""

FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphShape:
    """The sizes of a graph that the memory depends on."""

    num_papers: int
    num_features: int
    num_citations: int
    """Training citations."""

    walk_of_source: float
    """Papers on the walks of two hops from a paper that a step learns from: the other papers that
    cite its references, and the references of these. One hub among the references adds all that
    cite it."""

    walk_of_held_out: float
    """The same of a citing paper of the validation, whose hubs may be others."""

    num_similar: int = 0
    """Entries of the similarity graph."""


def measure(graph: PreparedGraph) -> GraphShape:
    """Return the shape of a graph; its walks are those of a sample of papers."""
    sources = np.flatnonzero(graph.references.degree_N)
    held_out = np.asarray(graph.valid.source_P)
    mean, deviation = _walk_sizes(graph, sources)
    return GraphShape(
        num_papers=graph.num_papers,
        num_features=graph.facts.num_features,
        num_citations=graph.facts.num_training_citations,
        # Of all the steps, the one with the most papers counts.
        walk_of_source=mean + 3 * deviation / math.sqrt(citation_objective.STRUCTURAL_SOURCES),
        walk_of_held_out=_walk_sizes(graph, held_out)[0],
        num_similar=0 if graph.similar is None else len(graph.similar.col_E),
    )


def _walk_sizes(graph: PreparedGraph, sources: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the papers on the walks from some papers."""
    if not len(sources):
        return 0.0, 0.0
    chosen = np.linspace(0, len(sources) - 1, min(SAMPLE, len(sources))).astype(np.int64)
    references_N, citations_N = graph.references.degree_N, graph.citations.degree_N
    size_S = _second_hop(graph.references, sources[chosen], references_N + citations_N)
    if graph.similar is not None:
        next_N = references_N + graph.similar.degree_N
        size_S = size_S + _second_hop(graph.similar, sources[chosen], next_N)
    return float(size_S.mean()), float(size_S.std())


def _second_hop(graph: Csr, source_S: np.ndarray, next_N: np.ndarray) -> np.ndarray:
    """Count the papers that two hops from each paper lead to."""
    reached = rows_of(graph, source_S)
    sums = np.concatenate([[0], np.cumsum(next_N[reached.col_E], dtype=np.int64)])
    size_S: np.ndarray = np.diff(sums[reached.rowptr_N1])
    return size_S


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape(GraphShape):
    config: Config

    @property
    def degree(self) -> float:
        return self.num_citations / self.num_papers

    @property
    def predictor(self) -> Predictor:
        return PREDICTORS[self.config.model.predictor]

    @property
    def walks(self) -> bool:
        """True where paths of three hops are counted; walks of one hop are nothing beside them."""
        return self.predictor.uses_structural_features and self.config.model.structural_hops > 2

    def papers_at_once(self, num_sources: float, walk: float) -> float:
        """Papers on the walks of the sources that are computed at once."""
        return self.walks * min(num_sources * walk, path_sums.WALK + walk)


def estimate(graph: GraphShape, *, config: Config, workers: int, allowed: int | None = None) -> int:
    """Return the bytes that all processes of one machine need at their peak, to about a fifth.

    Args:
        graph: sizes of the graph.
        config: all settings.
        workers: processes.
        allowed: bytes that they may use; layers of all papers that would fill them lie on the disk.
    """
    sizes = dataclasses.asdict(graph)
    sizes["num_features"] = graph.num_features or 1
    shape = _Shape(**sizes, config=config)
    num_papers = graph.num_papers
    num_citations = graph.num_citations
    model = config.model
    layer = num_papers * model.hidden_channels * FLOAT
    if allowed is not None and not fits_in_memory(layer, allowed):
        layer = 0
    embedding = _embedding(shape)
    # The phases of a training; the highest of them counts.
    measuring = workers * _measuring(shape)
    stepping = workers * _step(shape, workers)
    validating = workers * max(embedding, _scoring(shape))
    validating += min(2, max(1, model.num_layers)) * layer
    calibrating = workers * embedding + max(0, _calibration(shape) - embedding) + layer
    peak = round(max(measuring, stepping, validating, calibrating))
    arrays = 16 * num_citations + 28 * num_papers
    if shape.predictor.uses_structural_features:
        arrays += FLOAT * graph.num_similar
    return COMMAND + LIBRARIES + arrays + workers * WORKER + peak


def _measuring(shape: _Shape) -> float:
    """Mean and deviation of the features: a sample of them as float64, twice."""
    stride = max(1, shape.num_papers // tensors.STATISTICS_SAMPLE)
    return shape.num_papers // stride * shape.num_features * 16


def _step(shape: _Shape, workers: int) -> float:
    """A batch and the next one, activations and their gradients, scores, path counts."""
    train = shape.config.train
    model = shape.config.model
    sampler = PartitionSampler(
        num_papers=shape.num_papers,
        nodes_per_batch=train.nodes_per_batch,
        world_size=workers,
        seed=0,
    )
    papers = shape.num_papers / sampler.num_partitions
    citations = shape.num_citations / sampler.num_partitions / FOLDS
    sources = min(papers, citations)
    predictor = shape.predictor
    scores = 16.0 * sources * train.num_negatives
    if predictor.activations_per_pair:
        pairs = sources * predictor.limit_negatives(train.num_negatives) + citations
        scores = predictor.activations_per_pair * pairs * model.hidden_channels * FLOAT
    structural = 0.0
    if predictor.uses_structural_features:
        num_sources = citation_objective.STRUCTURAL_SOURCES
        structural = 400.0 * num_sources * train.num_negatives
        structural += BATCH_WALK * shape.papers_at_once(num_sources, shape.walk_of_source)
    activations = (6 * model.num_layers * papers + 6 * citations) * model.hidden_channels
    dense = FLOAT * (4 * papers * shape.num_features + activations)
    return dense + scores + structural + 100 * FOLDS * citations


def _embedding(shape: _Shape) -> float:
    """A chunk of papers and all of their neighbors, in the first layer or in one above."""
    model = shape.config.model
    papers = min(shape.num_papers, inference.CHUNK)
    neighbors = papers * (1 + OUTSIDE_NEIGHBORS * 2 * shape.degree)
    inputs = min(shape.num_papers, neighbors)
    first = 3 * inputs * shape.num_features + 4 * papers * model.hidden_channels
    above = (inputs + 5 * papers) * model.hidden_channels if model.num_layers > 1 else 0
    return FLOAT * max(first, above)


def _scoring(shape: _Shape) -> float:
    """Structural features of the pairs that are scored at once."""
    if not shape.predictor.uses_structural_features:
        return 0
    data = shape.config.data
    pairs = min(scoring.PAIRS, data.holdout * shape.num_papers * data.eval_negatives)
    walks = shape.papers_at_once(pairs / data.eval_negatives, shape.walk_of_held_out)
    return pairs * (100 + 100 * shape.degree) + SCORED_WALK * walks


def _calibration(shape: _Shape) -> float:
    """Path counts on rank 0."""
    is_calibrated = LOSSES[shape.config.train.loss].is_softmax
    if not is_calibrated or not shape.predictor.uses_structural_features:
        return 0
    sources = min(calibration.MAX_CITATIONS, shape.config.data.holdout * shape.num_papers)
    return SCORED_WALK * shape.papers_at_once(sources, shape.walk_of_held_out)
