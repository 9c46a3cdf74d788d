"""The objective of link prediction: a partition of the graph in, a loss out.

Legend: B papers of a subgraph, S sources, P citations, K shared negatives, D structural features;
Z sources and Y citations whose structural features are computed.
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
from citeflow.models.predictors import PREDICTORS
from citeflow.models.structural import StructuralFeatures
from citeflow.models.tensors import encoder_input, gather_features, to_sparse_tensor
from citeflow.sampling import Partition, Subgraph, sample_subgraph

STRUCTURAL_SOURCES = 192
"""Sources of a batch whose structural features are computed, at most: the head has a thousand
weights and learns from a few, while the encoder learns from all."""


OFFSET_WEIGHT = 0.01
"""Weight of `offset_penalty` in the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuralBatch:
    """The part of a batch that the structural head learns from."""

    source_Z: Tensor
    """Rows of `false_negative_mask_SK`."""
    citation_Y: Tensor
    """Indices into the citations of the batch."""
    source_index_Y: Tensor
    """Index into `source_Z` of each citation."""
    structural_YD: Tensor
    structural_ZKD: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """A batch as tensors."""

    x_BF: Tensor
    adj_BB: Tensor
    """Sparse, symmetric."""
    source_S: Tensor
    """Papers of the subgraph, as `target_P` and `negative_K`."""
    target_P: Tensor
    negative_K: Tensor
    source_index_P: Tensor
    """Index into `source_S` of each citation."""
    false_negative_mask_SK: Tensor
    structural: StructuralBatch | None

    @property
    def num_samples(self) -> int:
        """Citations to learn from, P."""
        return len(self.target_P)

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch on another device."""
        if device.type == "cpu":
            return self
        structural = self.structural
        if structural is not None:
            structural = StructuralBatch(**_tensors_on(structural, device))
        return Batch(**_tensors_on(self, device), structural=structural)


def _tensors_on(record: Batch | StructuralBatch, device: torch.device) -> dict[str, Tensor]:
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}


class Objective(nn.Module):
    """The loss of a link predictor.

    With structural features, the loss of the embeddings alone is added, so that the encoder does
    not leave the work to them.
    """

    def __init__(self, predictor: LinkPredictor, loss: str) -> None:
        super().__init__()
        self.predictor = predictor
        self.loss = LOSSES[loss]

    def forward(self, batch: Batch) -> Tensor:
        """Compute the loss of a batch."""
        h_BH = self.predictor.encoder(batch.x_BF, batch.adj_BB)
        source_SH = h_BH.index_select(0, batch.source_S)
        negative_KH = h_BH.index_select(0, batch.negative_K)
        negative_SK = self.predictor.score_embeddings(source_SH, negative_KH)
        positive_P = self.predictor.score_pairs(
            source_SH, batch.source_index_P, h_BH, batch.target_P
        )
        mask_SK = batch.false_negative_mask_SK
        loss = self.loss.function(positive_P, negative_SK, mask_SK, batch.source_index_P)
        if batch.structural is not None:
            loss = loss + self._structural_loss(batch.structural, positive_P, negative_SK, mask_SK)
        return loss

    def _structural_loss(
        self, structural: StructuralBatch, positive_P: Tensor, negative_SK: Tensor, mask_SK: Tensor
    ) -> Tensor:
        positive_Y = self.predictor.add_structural_score(
            positive_P.index_select(0, structural.citation_Y), structural.structural_YD
        )
        negative_ZK = self.predictor.add_structural_score(
            negative_SK.index_select(0, structural.source_Z), structural.structural_ZKD
        )
        mask_ZK = mask_SK.index_select(0, structural.source_Z)
        loss = self.loss.function(positive_Y, negative_ZK, mask_ZK, structural.source_index_Y)
        return loss + offset_penalty(negative_ZK, mask_ZK) if self.loss.is_softmax else loss


def offset_penalty(negative_ZK: Tensor, mask_ZK: Tensor) -> Tensor:
    """Pull the mean logit of each source's negatives to 0, by the square of it.

    A softmax over the candidates of one source does not see what is added to all of them, and the
    head may add anything that it knows of the source. Ranks stay the same, but probabilities, which
    compare the logits of all sources with one threshold, lose their meaning.
    """
    count_Z = (~mask_ZK).sum(dim=1).clamp(min=1)
    mean_Z = negative_ZK.masked_fill(mask_ZK, 0).sum(dim=1) / count_Z
    return OFFSET_WEIGHT * mean_Z.square().mean() if len(mean_Z) else negative_ZK.sum()


def make_batch(
    partition: Partition,
    *,
    graph: PreparedGraph,
    structural: StructuralFeatures,
    config: Config,
    seed: tuple[int, ...],
) -> Batch:
    """Gather everything that a step needs for a partition of the graph."""
    predictor = PREDICTORS[config.model.predictor]
    subgraph = sample_subgraph(
        partition,
        references=graph.references,
        neighbors=graph.neighbors,
        day_N=graph.day_N,
        num_negatives=predictor.limit_negatives(config.train.num_negatives),
        seed=(*seed, 0),
        hidden_share=config.train.hide_references if predictor.uses_structural_features else 0.0,
    )
    structural_batch = None
    if predictor.uses_structural_features:
        structural_batch = _make_structural_batch(subgraph, structural, (*seed, 1))
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    return Batch(
        x_BF=gather_features(x_NF, subgraph.paper_B),
        adj_BB=to_sparse_tensor(subgraph.adj, len(subgraph.paper_B)),
        source_S=torch.from_numpy(subgraph.source_S),
        target_P=torch.from_numpy(subgraph.target_P),
        negative_K=torch.from_numpy(subgraph.negative_K),
        source_index_P=torch.from_numpy(subgraph.source_index_P),
        false_negative_mask_SK=torch.from_numpy(subgraph.false_negative_mask_SK),
        structural=structural_batch,
    )


def _make_structural_batch(
    subgraph: Subgraph, structural: StructuralFeatures, seed: tuple[int, ...]
) -> StructuralBatch:
    """Compute the structural features of some sources, with all of their citations in it."""
    num_sources = len(subgraph.source_S)
    chosen = np.random.default_rng(seed).choice(
        num_sources, min(STRUCTURAL_SOURCES, num_sources), replace=False
    )
    source_Z = np.sort(chosen)
    citation_Y = np.flatnonzero(np.isin(subgraph.source_index_P, source_Z))
    source_index_Y = np.searchsorted(source_Z, subgraph.source_index_P[citation_Y])
    structural_YD, structural_ZKD = structural.for_batch(
        subgraph.paper_B[subgraph.source_S[source_Z]],
        source_index_Y,
        subgraph.paper_B[subgraph.target_P[citation_Y]],
        subgraph.paper_B[subgraph.negative_K],
        is_hidden_S=subgraph.is_hidden_S[source_Z],
    )
    return StructuralBatch(
        source_Z=torch.from_numpy(source_Z),
        citation_Y=torch.from_numpy(citation_Y),
        source_index_Y=torch.from_numpy(source_index_Y),
        structural_YD=torch.from_numpy(structural_YD),
        structural_ZKD=torch.from_numpy(structural_ZKD),
    )
