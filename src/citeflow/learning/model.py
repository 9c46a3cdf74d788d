"""GraphSAGE (Hamilton, Ying & Leskovec 2017) as an encoder of papers, and what scores a pair of them.

Legend: B papers of a block, F features, H width, S sources, P pairs, K candidates, D kinds of evidence.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from citeflow.config import ModelConfig

HEAD_WIDTH = 32


class Encoder(nn.Module):
    """A stack of SAGEConv layers; without layers a perceptron that sees the features alone."""

    def __init__(self, num_features: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_F: Tensor
        self.scale_F: Tensor
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("scale_F", torch.ones(num_features))
        widths = [num_features] + [config.width] * config.layers
        self.convs = nn.ModuleList(
            SAGEConv(before, after, aggr=config.aggregation, normalize=config.normalize)
            for before, after in itertools.pairwise(widths)
        )
        self.perceptron = None if config.layers else _perceptron(num_features, config.width, config.width)

    def forward(self, x_BF: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """Embed the papers that the last block ends at.

        Args:
            x_BF: features of the papers that the first block begins with.
            blocks: one sparse CSR matrix per layer, rows computed from columns, rows being the first columns.

        Returns:
            Embeddings, [rows of the last block, H].
        """
        x = self.scaled(x_BF)
        if self.perceptron is not None:
            x = self.perceptron(x)
        for layer, block in enumerate(blocks):
            x = self.layer(layer, x, x[: block.size(0)], block)
        return x

    def scaled(self, x_BF: Tensor) -> Tensor:
        """Bring every feature to mean 0 and deviation 1, as measured on the training graph."""
        return (x_BF - self.mean_F) * self.scale_F

    def layer(self, layer: int, x_column: Tensor, x_row: Tensor, block: Tensor) -> Tensor:
        """Compute one layer for the rows of a block from the values of its columns and of the rows themselves."""
        x: Tensor = self.convs[layer]((x_column, x_row), block)
        if layer + 1 == self.config.layers:
            return x
        return nn.functional.dropout(x.relu(), self.config.dropout, self.training)


class DotPredictor(nn.Module):
    """The dot product of two embeddings, times a learned scale where the loss is a softmax."""

    def __init__(self, *, scaled: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        if target_SKH.dim() == 2:
            score_SK = source_SH @ target_SKH.T
        else:
            score_SK = (target_SKH @ source_SH[:, :, None]).squeeze(-1)
        return score_SK if self.log_scale is None else score_SK * self.log_scale.exp()


class HadamardPredictor(nn.Module):
    """A perceptron on the elementwise product of two embeddings, as in OGB's examples."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.perceptron = _perceptron(width, width, 1)

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        score_SK: Tensor = self.perceptron(source_SH[:, None, :] * target_SKH).squeeze(-1)
        return score_SK


class StructuralHead(nn.Module):
    """Joins the score of the embeddings with the evidence of the pair."""

    def __init__(self, num_evidence: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_evidence + 1, 1)
        self.perceptron = nn.Sequential(
            nn.Linear(num_evidence + 1, HEAD_WIDTH),
            nn.ReLU(),
            nn.Linear(HEAD_WIDTH, HEAD_WIDTH),
            nn.ReLU(),
            nn.Linear(HEAD_WIDTH, 1),
        )

    def forward(self, score: Tensor, evidence_D: Tensor) -> Tensor:
        """Score pairs from the embeddings' scores, of any shape, and the evidence, one axis more."""
        z = torch.cat([score[..., None], evidence_D], dim=-1)
        joined: Tensor = (self.perceptron(z) + self.linear(z)).squeeze(-1)
        return joined


class LinkPredictor(nn.Module):
    """An encoder, a predictor on its embeddings, and, for `structural`, a head that adds the evidence."""

    def __init__(self, num_features: int, num_evidence: int, config: ModelConfig, *, scaled: bool) -> None:
        """Args: F; D; the configuration; whether dot products get a learned scale (a softmax needs one)."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(num_features, config)
        self.predictor = HadamardPredictor(config.width) if config.predictor == "mlp" else DotPredictor(scaled=scaled)
        self.head = StructuralHead(num_evidence) if config.predictor == "structural" else None

    @property
    def uses_evidence(self) -> bool:
        """Whether scores need the evidence of the pair."""
        return self.head is not None

    def embedded(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score by the embeddings alone: logits [S, K] for candidates [S, K, H] of each source, or [K, H] shared."""
        score_SK: Tensor = self.predictor(source_SH, target_SKH)
        return score_SK

    def joined(self, score: Tensor, evidence_D: Tensor) -> Tensor:
        """Join scores of the embeddings, of any shape, with the evidence, one axis more."""
        if self.head is None:
            return score
        joined: Tensor = self.head(score, evidence_D)
        return joined


def _perceptron(before: int, width: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, width), nn.ReLU(), nn.Linear(width, after))
