"""An estimate of the memory that a training of citations needs, fitted to peaks that were measured.

It counts what the kernel cannot take back: private memory of all processes (the command, torchrun,
standbys, workers), where pages that forked processes share count once; shared memory; and the
mapped pages in constant use, which are torch's code and the citations. Features and negatives of
the evaluation are left out, as they are read once, in pieces.

Legend: N papers, E citations, F features, H hidden channels, S sources.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np

from citeflow.config import Config
from citeflow.evaluation import calibration, chunks, inference
from citeflow.graph.csr import Csr, rows_of
from citeflow.graph.prepared import PreparedGraph
from citeflow.models import path_sums, tensors
from citeflow.models.feature_cosine import MAX_KEPT_FEATURES
from citeflow.models.losses import LOSSES
from citeflow.models.predictors import PREDICTORS, Predictor
from citeflow.sampling import FOLDS, PartitionSampler
from citeflow.tasks import citation_objective
from citeflow.tasks.citation_training import MAX_VALIDATION_SOURCES
from citeflow.utils.large_arrays import LARGEST_SHARE, fits_in_memory

MIB = 2**20

COMMAND = 45 * MIB
"""The command, or a pipeline step with its parent: 37 and 44 were measured."""

LIBRARIES = 125 * MIB
"""Code of Python and torch, which all processes share; 124 were measured."""

IMPORTED = 265 * MIB
"""Modules of the process named `citeflow`, which all that are forked from it share: follows from
how the shares of each fall where there are more of them, with one, two and four workers."""

TORCHRUN = 50 * MIB
"""Memory of this process and torchrun besides: 32 and 11 to 16 were measured."""

STANDBY = 14 * MIB
"""Memory of a standby besides: 9 to 16 were measured, pages that counters of references are in."""

WORKER = 78 * MIB
"""Memory of a worker besides before it reads: such pages, Adam, gloo, autograd, threads."""

OVERLAP = 0.7
"""Share of their peaks within a phase that the other workers have when one is at its own: two had
nine tenths, four on two cores half of all of them."""

KEPT = 40
"""Bytes per paper of degrees and weights that a worker keeps for walks; ten arrays."""

BATCH_WALK = 50
"""Bytes per paper on the walks from the sources of a step; 64 were measured of a batch alone, whose
peak is not always that of the step beside it."""

SCORED_WALK = 52
"""Bytes per paper on the walks to candidates that are scored, four sums of float64 among them; 36
to 64 were measured."""

SCORED_PAIR = 540
"""Bytes of a pair that is scored: sums of paths, features, counts; 500 to 700 were measured."""

SAMPLE = 4096
"""Papers whose walks are counted."""

LEAST_MAPPED = 0.25
"""Share of the mapped citations that has to stay in memory; the kernel reads the rest again when it
is needed. 29 million papers, with 8.5 GB of them, trained in a container of 8 GB, and 100 million,
with 39 GB and 6 GB of other memory, in one of 16 GB, as fast as the 2.9 million of
ogbl-citation2."""

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

    def walked_at_once(self, num_sources: float, walk: float) -> float:
        """Papers on the walks of the sources that are computed at once."""
        return self.walks * min(num_sources * walk, path_sums.WALK + walk)


def estimate(graph: GraphShape, *, config: Config, workers: int, allowed: int | None = None) -> int:
    """Return the bytes that all processes of one machine need at their peak, to about a fifth.

    Args:
        graph: sizes of the graph.
        config: all settings.
        workers: processes.
        allowed: bytes that they may use; layers of all papers that would fill them lie on the disk,
            and citations are counted as far as there is room.
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
    embedding = _embedding(shape, workers, allowed or math.inf)
    # The phases of a training; the highest of them counts.
    together = 1 + OVERLAP * (workers - 1)
    measuring = together * _measuring(shape)
    stepping = together * _step(shape, workers)
    embedding_all = together * embedding + min(2, max(1, model.num_layers)) * layer
    scoring = _scoring(shape)
    if allowed is not None:
        scoring += _held(shape, workers, allowed)
    validating = max(embedding_all, together * scoring + layer)
    calibrating = _calibration(shape) + layer
    peak = round(max(measuring, stepping, validating, calibrating) + workers * _kept(shape))
    arrays = 16 * num_citations + 28 * num_papers
    if shape.predictor.uses_structural_features:
        arrays += FLOAT * graph.num_similar
    processes = COMMAND + LIBRARIES + IMPORTED + TORCHRUN + workers * (STANDBY + WORKER)
    private = processes + peak
    if allowed is not None:
        arrays = min(arrays, max(round(LEAST_MAPPED * arrays), allowed - private))
    return private + arrays


def _measuring(shape: _Shape) -> float:
    """Mean and deviation of the features: a sample of them as float64, twice."""
    stride = max(1, shape.num_papers // tensors.STATISTICS_SAMPLE)
    return shape.num_papers // stride * shape.num_features * 16


def _kept(shape: _Shape) -> float:
    """Bytes of all papers for walks and cosines, which a worker keeps from its first step on."""
    if not shape.predictor.uses_structural_features:
        return 0
    features = shape.num_papers * shape.num_features
    is_scaled = shape.config.model.features == "given" and features <= MAX_KEPT_FEATURES
    return KEPT * shape.num_papers + is_scaled * features * FLOAT


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
        structural += BATCH_WALK * shape.walked_at_once(num_sources, shape.walk_of_source)
    activations = (6 * model.num_layers * papers + 2 * citations) * model.hidden_channels
    dense = FLOAT * (4 * papers * shape.num_features + activations)
    return dense + scores + structural + 100 * FOLDS * citations


def _embedding(shape: _Shape, workers: int, allowed: float) -> float:
    """The papers of a pass: their citations, the sums over them, what is read, a chunk's layer."""
    model = shape.config.model
    num_papers, width = shape.num_papers, max(shape.num_features, model.hidden_channels)
    papers = inference.papers_of_pass(
        -(-num_papers // workers), num_papers * width * FLOAT, allowed
    )
    read = min(num_papers, inference.rows_at_once(papers))
    chunk = min(papers, inference.CHUNK) * model.hidden_channels * FLOAT
    sums = papers * width * FLOAT if model.num_layers else 0
    entries = 10 * 2 * shape.degree * papers + FLOAT * num_papers
    return sums + 24 * papers + read * width * FLOAT + 4 * chunk + entries


def _scoring(shape: _Shape) -> float:
    """Structural features of the pairs that are scored at once."""
    if not shape.predictor.uses_structural_features:
        return 0
    data = shape.config.data
    pairs = min(chunks.PAIRS, data.holdout * shape.num_papers * data.eval_negatives)
    walks = shape.walked_at_once(pairs / data.eval_negatives, shape.walk_of_held_out)
    dates = 16 * min(pairs * shape.degree, shape.num_citations)
    return SCORED_PAIR * pairs + dates + SCORED_WALK * walks


def _held(shape: _Shape, workers: int, allowed: int) -> float:
    """Rows of the papers of a worker's share of a validation, of what lies on the disk."""
    data = shape.config.data
    sources = min(MAX_VALIDATION_SOURCES, data.holdout * shape.num_papers) / workers
    widths = [shape.config.model.hidden_channels]
    if shape.predictor.uses_structural_features and shape.config.model.features == "given":
        widths.append(shape.num_features)
    row = FLOAT * sum(
        width for width in widths if not fits_in_memory(shape.num_papers * width * FLOAT, allowed)
    )
    return min(sources * (1 + data.eval_negatives) * row, LARGEST_SHARE * allowed)


def _calibration(shape: _Shape) -> float:
    """Path counts on rank 0."""
    is_calibrated = LOSSES[shape.config.train.loss].is_softmax
    if not is_calibrated or not shape.predictor.uses_structural_features:
        return 0
    sources = min(calibration.MAX_CITATIONS, shape.config.data.holdout * shape.num_papers)
    return SCORED_WALK * shape.walked_at_once(sources, shape.walk_of_held_out)
