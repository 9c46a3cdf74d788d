"""One step's computation: a batch in, a loss out.

Legend: B papers of a block, S sources, P citations, K shared negatives, D kinds of evidence, W wanted papers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from citeflow.config import Config
from citeflow.graph.prepared import PreparedGraph
from citeflow.learning.evidence import Evidence
from citeflow.learning.loss import LOSSES
from citeflow.learning.model import LinkPredictor
from citeflow.learning.sampling import Batch, make_batch, neighbourhood
from citeflow.learning.tensors import features_of, to_sparse


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """A batch as tensors."""

    x_BF: Tensor
    blocks: list[Tensor]
    source_S: Tensor
    """Rows of the encoder's output, as `target_P` and `negative_K`."""
    target_P: Tensor
    negative_K: Tensor
    row_P: Tensor
    masked_SK: Tensor
    evidence_PD: Tensor | None
    evidence_SKD: Tensor | None

    def to(self, device: torch.device) -> "Inputs":
        """The same on another device."""
        if device.type == "cpu":
            return self
        moved = {name: getattr(self, name) for name in self.__slots__}
        moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in moved.items()}
        return Inputs(**{**moved, "blocks": [block.to(device) for block in self.blocks]})


class Objective(nn.Module):
    """The loss of a link predictor; with evidence, the embeddings' own loss is added, so that they learn as well."""

    def __init__(self, predictor: LinkPredictor, loss: str) -> None:
        super().__init__()
        self.predictor = predictor
        self.loss = LOSSES[loss]

    def forward(self, inputs: Inputs) -> Tensor:
        """Compute the loss of a batch."""
        h_WH = self.predictor.encoder(inputs.x_BF, inputs.blocks)
        source_SH = h_WH.index_select(0, inputs.source_S)
        negative = self.predictor.scores(source_SH, h_WH.index_select(0, inputs.negative_K), inputs.evidence_SKD)
        source_PH = source_SH.index_select(0, inputs.row_P)
        target_P1H = h_WH.index_select(0, inputs.target_P)[:, None, :]
        evidence_P1D = None if inputs.evidence_PD is None else inputs.evidence_PD[:, None, :]
        positive = self.predictor.scores(source_PH, target_P1H, evidence_P1D)
        losses = [
            self.loss(positive_P1.squeeze(1), negative_SK, inputs.masked_SK, inputs.row_P)
            for positive_P1, negative_SK in zip(positive, negative, strict=True)
        ]
        total: Tensor = losses[0] + losses[1] if self.predictor.uses_evidence else losses[0]
        return total


def make_inputs(
    position_P: np.ndarray, *, graph: PreparedGraph, evidence: Evidence, config: Config, seed: tuple[int, ...]
) -> Inputs:
    """Gather all that a step needs for the citations at some positions of `graph.references`."""
    train = config.train
    batch = make_batch(
        position_P, references=graph.references, day_N=graph.day_N, negatives=train.negatives, seed=(*seed, 0)
    )
    wanted_W = np.unique(np.concatenate([batch.source_S, batch.target_P, batch.negative_K]))
    near = neighbourhood(
        wanted_W,
        neighbours=graph.neighbours,
        layers=config.model.layers,
        fanout=train.fanout,
        without=(batch.source_P, batch.target_P),
        seed=(*seed, 1),
    )
    x_NF = graph.x_NF if config.model.features == "given" else None
    evidence_PD, evidence_SKD = _evidence(batch, evidence, config)
    return Inputs(
        x_BF=features_of(x_NF, near.paper_B),
        blocks=[to_sparse(block) for block in near.blocks],
        source_S=_places(wanted_W, batch.source_S),
        target_P=_places(wanted_W, batch.target_P),
        negative_K=_places(wanted_W, batch.negative_K),
        row_P=torch.from_numpy(batch.row_P),
        masked_SK=torch.from_numpy(batch.masked_SK),
        evidence_PD=evidence_PD,
        evidence_SKD=evidence_SKD,
    )


def _evidence(batch: Batch, evidence: Evidence, config: Config) -> tuple[Tensor | None, Tensor | None]:
    if config.model.predictor != "structural":
        return None, None
    own_PD = evidence.of_citations(batch.source_P, batch.target_P)
    shared_SKD = evidence.of_shared(batch.source_S, batch.negative_K)
    return torch.from_numpy(own_PD), torch.from_numpy(shared_SKD)


def _places(sorted_W: np.ndarray, papers: np.ndarray) -> Tensor:
    return torch.from_numpy(np.searchsorted(sorted_W, papers))
