"""The citation task on one rank: model, batches, validation, calibration.

Legend: N papers, H hidden channels.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import JsonValue
from torch import Tensor

from citeflow import own_model
from citeflow.config import Config, TrainConfig
from citeflow.data.citation_graph import HeldOut
from citeflow.errors import ConfigError
from citeflow.evaluation import trained_model
from citeflow.evaluation.calibration import Calibration, calibrate, fit, fitted_citations
from citeflow.evaluation.chunks import hard_chunks
from citeflow.evaluation.inference import embed_all
from citeflow.evaluation.metrics import accuracy, count_better, rank_positives
from citeflow.evaluation.scoring import (
    PaperRows,
    build_structural_features,
    even_rows,
    sample_held_out,
    score_candidates,
    score_held_out,
)
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.losses import LOSSES
from citeflow.models.own import warm_start
from citeflow.models.structural import StructuralFeatures
from citeflow.models.tensors import encoder_input, mean_and_scale
from citeflow.own_model import OwnFiles
from citeflow.report import stage_costs
from citeflow.sampling import Partition, PartitionSampler
from citeflow.tasks.base import TrainResult
from citeflow.tasks.citation_objective import Batch, Objective, make_batch
from citeflow.tasks.names import Names
from citeflow.training.distributed import Group
from citeflow.utils.large_arrays import read_ahead
from citeflow.utils.system import malloc_trim

MAX_VALIDATION_SOURCES = 2000
"""Held-out citations that a validation during training ranks."""

FIGURES = ("valid_mrr", "valid_accuracy")
"""Figures of a validation; the first is the score."""

HARD_MRR = "valid_hard_mrr"
"""One more, for a graph with hard candidates: MRR in the protocol `hard`, of a few sources."""

MAX_HARD_SOURCES = 100
"""Held-out citations that a validation ranks among hard candidates: a curve to look at, for a
seventh of a validation's time on hep-th, and less on larger graphs."""


class OpenCitationTask:
    """A PreparedGraph, and the settings to train on it."""

    names = Names(score=FIGURES[0], metric="MRR", samples="citations")

    def __init__(self, graph: PreparedGraph, config: Config, data_root: Path | None = None) -> None:
        self.graph = graph
        self.config = config
        self.data_root = data_root

    @property
    def train(self) -> TrainConfig:
        """Settings of the trainer."""
        return self.config.train

    def inputs(self, world_size: int) -> dict[str, JsonValue]:
        """Return digests of graph and settings, and the number of workers."""
        return trained_model.inputs_of(self.graph, self.config, world_size)

    def begin(self, group: Group) -> "LinkPrediction":
        """Build the untrained model, by code of one's own if the settings name some.

        Raises:
            ConfigError: the settings cannot run on a GPU, or a file of one's own does not fit.
        """
        if group.device.type == "cuda" and self.config.model.aggr == "max":
            hint = "PyG has no sparse maximum on a GPU; take mean or add"
            raise ConfigError("model.aggr", "max", hint=hint)
        own_files = own_model.open_files(self.config, self.data_root)
        return LinkPrediction(self.graph, self.config, group, own_files)


class LinkPrediction:
    """A link predictor in training."""

    def __init__(
        self,
        graph: PreparedGraph,
        config: Config,
        group: Group,
        own_files: OwnFiles = own_model.NO_FILES,
    ) -> None:
        self.graph = graph
        self.config = config
        self.group = group
        self.own_files = own_files
        self.structural = build_structural_features(graph, config.model)
        self.model = build_model(graph, self.structural, config, own_files).to(group.device)
        self.objective = Objective(self.model, config.train.loss)
        self.calibration = Calibration()
        self._validated: _Validated | None = None
        has_hard_P = graph.hard.index(np.asarray(graph.valid.source_P)) >= 0
        self._hard_rows = even_rows(np.flatnonzero(has_hard_P), MAX_HARD_SOURCES)
        self._sampler = PartitionSampler(
            num_papers=graph.num_papers,
            nodes_per_batch=config.train.nodes_per_batch,
            world_size=group.world_size,
            seed=config.train.seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which the ranks see every partition in every supervision fold."""
        return self._sampler.steps_per_epoch

    @property
    def samples_per_epoch(self) -> int:
        """Training citations."""
        return max(1, len(self.graph.references.col_E))

    def make_batch(self, step: int) -> Batch:
        """Gather a partition of the graph with its targets and negatives."""
        self._read_ahead(self._sampler.partition(step + 1, self.group.rank))
        return make_batch(
            self._sampler.partition(step, self.group.rank),
            graph=self.graph,
            structural=self.structural,
            config=self.config,
            seed=(self.config.train.seed, step, self.group.rank),
        )

    def _read_ahead(self, partition: Partition) -> None:
        """Have the kernel read what the next batch takes, while this one is made."""
        first_R, end_R = partition.bounds_R2.T
        if self.graph.x_NF is not None and self.config.model.features == "given":
            read_ahead(self.graph.x_NF, first_R, end_R)
        for csr in (self.graph.neighbors, self.graph.references):
            read_ahead(csr.col_E, csr.rowptr_N1[first_R], csr.rowptr_N1[end_R])

    def validate(self) -> tuple[dict[str, float], int]:
        """Sum reciprocal ranks and right answers over this rank's share of the held-out citations.

        The accuracy is that of probabilities that are calibrated on the share itself.
        """
        part = sample_held_out(
            self.graph.valid,
            most=MAX_VALIDATION_SOURCES,
            rank=self.group.rank,
            world_size=self.group.world_size,
        )
        # The heap keeps what the last step has freed; the embeddings need the room, and so does the
        # next step afterwards.
        malloc_trim()
        if self.own_files.code:
            self.group.broadcast_buffers(self.model)
        rows = self._embed()
        sums = self._sum_figures(rows, part) if len(part.source_P) else (0.0, 0.0)
        figures = dict(zip(FIGURES, sums, strict=True))
        if len(self._hard_rows):
            # The mean is taken over all that are validated, of which these are a part.
            total = min(MAX_VALIDATION_SOURCES, len(self.graph.valid.source_P))
            figures[HARD_MRR] = self._sum_hard(rows) * total / len(self._hard_rows)
        if self.group.is_main:
            self._validated = self._keep(rows)
        del rows
        malloc_trim()
        return figures, len(part.source_P)

    @cached_property
    def _fitted(self) -> HeldOut:
        """Citations that the calibration is fitted to; rank 0 asks for them."""
        return fitted_citations(self.graph.valid)

    def _embed(self) -> PaperRows:
        """Embed all papers, the ranks sharing the work."""
        return PaperRows(embed_all(self.model, self.graph, self.group), self.structural)

    def _keep(self, rows: PaperRows) -> "_Validated":
        """Keep what a calibration of the weights of now takes."""
        ends = (self._fitted.source_P, self._fitted.target_P, self._fitted.negative_PK)
        paper_U = np.unique(np.concatenate([each.ravel() for each in ends]))
        weights = {name: value.clone() for name, value in self.model.state_dict().items()}
        return _Validated(weights, rows.only(paper_U))

    def _sum_hard(self, rows: PaperRows) -> float:
        """Sum reciprocal ranks among hard candidates over this rank's share of their sources."""
        own = self._hard_rows[self.group.rank :: self.group.world_size]
        total = 0.0
        chunks = hard_chunks(self.graph.valid, self.graph.hard, own)
        for held, group in rows.groups(self.model, chunks):
            for chunk in group:
                score = torch.from_numpy(
                    score_candidates(self.model, held, chunk.source_P, chunk.candidate_PK)
                )
                if not score.isfinite().all():
                    return math.nan
                assert chunk.is_counted_PK is not None
                counted_PK = torch.from_numpy(chunk.is_counted_PK)
                rank_P = 1 + count_better(score[:, 0], score[:, 1:], counted_PK)
                total += float((1 / rank_P).sum())
        return total

    def _sum_figures(self, rows: PaperRows, part: HeldOut) -> tuple[float, float]:
        score = torch.from_numpy(score_held_out(self.model, rows, part))
        if not score.isfinite().all():
            return math.nan, math.nan
        positive_P, negative_P = score[:, 0], score[:, 1]
        calibration = fit(positive_P, negative_P, loss=self.config.train.loss)
        share_right = accuracy(calibration(positive_P), calibration(negative_P))
        reciprocal_P = 1 / rank_positives(positive_P, score[:, 1:]).double()
        return float(reciprocal_P.sum()), share_right * len(positive_P)

    def finish(self) -> None:
        """Calibrate the probabilities on the validation citations; rank 0 does it for all.

        Where the weights are those of the latest validation, nothing is embedded again.
        """
        kept = self._validated if self._validated and self._validated.is_of(self.model) else None
        # The ranks embed together, so all of them have to know whether rank 0 has what it takes.
        (is_kept,) = self.group.all_reduce(kept is not None)
        rows = None if is_kept else self._embed()
        if kept:
            rows = kept.rows
        if self.group.is_main and rows:
            loss = self.config.train.loss
            self.calibration = calibrate(self.model, rows, self._fitted, loss=loss)

    def save(self, folder: Path, result: TrainResult) -> None:
        """Write the TrainedModel."""
        trained_model.save(
            folder,
            self.model,
            config=self.config,
            structural_features=self.structural.names,
            calibration=self.calibration,
            result=trained_model.TrainingFacts(
                summary=result.summary,
                stages={**stage_costs(self.graph.manifest), "train": result.resources.cost},
                history=result.progress.history,
                evaluations=result.progress.evaluations,
                resources=result.resources.series,
                own_files=self.own_files,
            ),
            inputs=result.inputs,
        )


@dataclass(frozen=True, slots=True)
class _Validated:
    """Left by the latest validation for the calibration, on rank 0."""

    weights: dict[str, Tensor]
    rows: PaperRows
    """Embeddings, by these weights, of the papers that the calibration is fitted to."""

    def is_of(self, model: LinkPredictor) -> bool:
        """Return True if a model has the same weights."""
        return all(
            torch.equal(value, self.weights[name]) for name, value in model.state_dict().items()
        )


def build_model(
    graph: PreparedGraph,
    structural: StructuralFeatures,
    config: Config,
    own_files: OwnFiles = own_model.NO_FILES,
) -> LinkPredictor:
    """Build an untrained model for a graph, the same on every rank.

    With `model.weights` it is not untrained; with `model.code` this runs the code.

    Raises:
        ConfigError: one of these files does not fit.
    """
    torch.manual_seed(config.train.seed)
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    num_features = 1 if x_NF is None else x_NF.shape[1]
    scaled = LOSSES[config.train.loss].is_softmax
    source = own_files.read_code()
    model = LinkPredictor(
        num_features,
        len(structural.names),
        config.model,
        scaled=scaled,
        encoder=trained_model.build_encoder(source, num_features, config) if source else None,
    )
    if x_NF is not None:
        model.encoder.mean_F, model.encoder.scale_F = mean_and_scale(x_NF)
    if own_files.weights:
        warm_start(model, safetensors.torch.load_file(own_files.weights))
    return model
