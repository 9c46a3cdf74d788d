"""One step's computation: a batch in, a loss out.

The structural head has a thousand weights and learns from a few sources of each batch; the encoder learns from all.

Legend: B papers of a subgraph, S sources, P citations, K shared negatives, D kinds of evidence.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from citeflow.config import Config
from citeflow.graph.prepared import PreparedGraph
from citeflow.models.link_predictor import LinkPredictor
from citeflow.models.losses import LOSSES
from citeflow.models.structural import StructuralFeatures
from citeflow.models.tensors import encoder_input, features_of, sparse
from citeflow.sampling import Batch, Partition, make_batch

STRUCTURAL_SOURCES = 256
"""Sources of a batch whose evidence is looked up, at most."""


MLP_NEGATIVES = 16
"""Negatives of a batch where a perceptron looks at every pair: a hundred times the work of a dot product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A batch as tensors."""

    x_BF: Tensor
    links_BB: Tensor
    """Sparse, symmetric."""
    source_S: Tensor
    """Papers of the subgraph, as `target_P` and `negative_K`."""
    target_P: Tensor
    negative_K: Tensor
    row_P: Tensor
    masked_SK: Tensor
    judged: "Judged | None"

    @property
    def num_samples(self) -> int:
        """Citations to learn from, P."""
        return len(self.target_P)

    def to(self, device: torch.device) -> "Inputs":
        """The same on another device."""
        if device.type == "cpu":
            return self
        return Inputs(
            **_moved(self, device), judged=self.judged and Judged(**_moved(self.judged, device))
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """The part of a batch that the structural head learns from; Z sources, Y citations."""

    source_Z: Tensor
    """Rows of `masked_SK`."""
    citation_Y: Tensor
    """Positions among the batch's citations."""
    row_Y: Tensor
    """Which of `source_Z` each citation belongs to."""
    structural_YD: Tensor
    structural_ZKD: Tensor


def _moved(record: Inputs | Judged, device: torch.device) -> dict[str, Tensor]:
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}


class Objective(nn.Module):
    """The loss of a link predictor; with evidence, the embeddings' own loss is added, so that they learn as well."""

    def __init__(self, predictor: LinkPredictor, loss: str) -> None:
        super().__init__()
        self.predictor = predictor
        self.loss = LOSSES[loss]

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the loss of a batch."""
        h_BH = self.predictor.encoder(inputs.x_BF, inputs.links_BB)
        source_SH = h_BH.index_select(0, inputs.source_S)
        source_PH = source_SH.index_select(0, inputs.row_P)
        target_P1H = h_BH.index_select(0, inputs.target_P)[:, None, :]
        negative_SK = self.predictor.embedded(source_SH, h_BH.index_select(0, inputs.negative_K))
        positive_P = self.predictor.embedded(source_PH, target_P1H).squeeze(1)
        loss = self.loss(positive_P, negative_SK, inputs.masked_SK, inputs.row_P)
        if inputs.judged is not None:
            loss = loss + self._judged(inputs.judged, positive_P, negative_SK, inputs.masked_SK)
        return loss

    def _judged(
        self, judged: Judged, positive_P: Tensor, negative_SK: Tensor, masked_SK: Tensor
    ) -> Tensor:
        positive_Y = self.predictor.joined(
            positive_P.index_select(0, judged.citation_Y), judged.structural_YD
        )
        negative_ZK = self.predictor.joined(
            negative_SK.index_select(0, judged.source_Z), judged.structural_ZKD
        )
        return self.loss(
            positive_Y, negative_ZK, masked_SK.index_select(0, judged.source_Z), judged.row_Y
        )


def make_inputs(
    part: Partition,
    *,
    graph: PreparedGraph,
    structural: StructuralFeatures,
    config: Config,
    seed: tuple[int, ...],
) -> Inputs:
    """Gather all that a step needs for a part of the graph."""
    most = MLP_NEGATIVES if config.model.predictor == "mlp" else config.train.num_negatives
    batch = make_batch(
        part,
        references=graph.references,
        neighbors=graph.neighbors,
        day_N=graph.day_N,
        negatives=min(most, config.train.num_negatives),
        seed=(*seed, 0),
    )
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    return Inputs(
        x_BF=features_of(x_NF, batch.paper_B),
        links_BB=sparse(batch.links, len(batch.paper_B)),
        source_S=torch.from_numpy(batch.source_S),
        target_P=torch.from_numpy(batch.target_P),
        negative_K=torch.from_numpy(batch.negative_K),
        row_P=torch.from_numpy(batch.row_P),
        masked_SK=torch.from_numpy(batch.masked_SK),
        judged=_judge(batch, structural, (*seed, 1))
        if config.model.predictor == "structural"
        else None,
    )


def _judge(batch: Batch, structural: StructuralFeatures, seed: tuple[int, ...]) -> Judged:
    """Look up the evidence for some of a batch's sources and all of their citations in it."""
    num_sources = len(batch.source_S)
    chosen = np.random.default_rng(seed).choice(
        num_sources, min(STRUCTURAL_SOURCES, num_sources), replace=False
    )
    source_Z = np.sort(chosen)
    citation_Y = np.flatnonzero(np.isin(batch.row_P, source_Z))
    row_Y = np.searchsorted(source_Z, batch.row_P[citation_Y])
    structural_YD, structural_ZKD = structural.for_batch(
        batch.paper_B[batch.source_S[source_Z]],
        row_Y,
        batch.paper_B[batch.target_P[citation_Y]],
        batch.paper_B[batch.negative_K],
    )
    return Judged(
        source_Z=torch.from_numpy(source_Z),
        citation_Y=torch.from_numpy(citation_Y),
        row_Y=torch.from_numpy(row_Y),
        structural_YD=torch.from_numpy(structural_YD),
        structural_ZKD=torch.from_numpy(structural_ZKD),
    )
