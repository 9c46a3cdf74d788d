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
from citeflow.models.predictors import PREDICTORS
from citeflow.models.structural import StructuralFeatures
from citeflow.models.tensors import encoder_input, gather_features, to_sparse_tensor
from citeflow.sampling import Batch, Partition, make_batch

STRUCTURAL_SOURCES = 256
"""Sources of a batch whose evidence is looked up, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A batch as tensors."""

    x_BF: Tensor
    adj_BB: Tensor
    """Sparse, symmetric."""
    source_S: Tensor
    """Papers of the subgraph, as `target_P` and `negative_K`."""
    target_P: Tensor
    negative_K: Tensor
    source_index_P: Tensor
    false_negative_mask_SK: Tensor
    judged: "Judged | None"

    @property
    def num_positives(self) -> int:
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
    """Rows of `false_negative_mask_SK`."""
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
        h_BH = self.predictor.encoder(inputs.x_BF, inputs.adj_BB)
        source_SH = h_BH.index_select(0, inputs.source_S)
        source_PH = source_SH.index_select(0, inputs.source_index_P)
        target_P1H = h_BH.index_select(0, inputs.target_P)[:, None, :]
        negative_SK = self.predictor.score_embeddings(
            source_SH, h_BH.index_select(0, inputs.negative_K)
        )
        positive_P = self.predictor.score_embeddings(source_PH, target_P1H).squeeze(1)
        loss = self.loss(
            positive_P, negative_SK, inputs.false_negative_mask_SK, inputs.source_index_P
        )
        if inputs.judged is not None:
            loss = loss + self._judged(
                inputs.judged, positive_P, negative_SK, inputs.false_negative_mask_SK
            )
        return loss

    def _judged(
        self,
        judged: Judged,
        positive_P: Tensor,
        negative_SK: Tensor,
        false_negative_mask_SK: Tensor,
    ) -> Tensor:
        positive_Y = self.predictor.add_structural_score(
            positive_P.index_select(0, judged.citation_Y), judged.structural_YD
        )
        negative_ZK = self.predictor.add_structural_score(
            negative_SK.index_select(0, judged.source_Z), judged.structural_ZKD
        )
        return self.loss(
            positive_Y,
            negative_ZK,
            false_negative_mask_SK.index_select(0, judged.source_Z),
            judged.row_Y,
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
    predictor = PREDICTORS[config.model.predictor]
    batch = make_batch(
        part,
        references=graph.references,
        neighbors=graph.neighbors,
        day_N=graph.day_N,
        num_negatives=predictor.limit_negatives(config.train.num_negatives),
        seed=(*seed, 0),
    )
    x_NF = encoder_input(graph.x_NF, graph.num_papers, config.model)
    return Inputs(
        x_BF=gather_features(x_NF, batch.paper_B),
        adj_BB=to_sparse_tensor(batch.adj, len(batch.paper_B)),
        source_S=torch.from_numpy(batch.source_S),
        target_P=torch.from_numpy(batch.target_P),
        negative_K=torch.from_numpy(batch.negative_K),
        source_index_P=torch.from_numpy(batch.source_index_P),
        false_negative_mask_SK=torch.from_numpy(batch.false_negative_mask_SK),
        judged=_judge(batch, structural, (*seed, 1))
        if predictor.uses_structural_features
        else None,
    )


def _judge(batch: Batch, structural: StructuralFeatures, seed: tuple[int, ...]) -> Judged:
    """Look up the evidence for some of a batch's sources and all of their citations in it."""
    num_sources = len(batch.source_S)
    chosen = np.random.default_rng(seed).choice(
        num_sources, min(STRUCTURAL_SOURCES, num_sources), replace=False
    )
    source_Z = np.sort(chosen)
    citation_Y = np.flatnonzero(np.isin(batch.source_index_P, source_Z))
    row_Y = np.searchsorted(source_Z, batch.source_index_P[citation_Y])
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
