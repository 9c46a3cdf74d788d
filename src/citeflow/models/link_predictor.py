"""GraphSAGE (Hamilton, Ying & Leskovec 2017) as an encoder of papers, and what scores a pair of them.

Legend: B papers of a subgraph, C papers that they listen to, F features, H width, S sources, P pairs, K candidates,
D kinds of evidence.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from citeflow.config import ModelConfig

HEAD_WIDTH = 32


class _Propagate(torch.autograd.Function):
    """Product with a symmetric adjacency, so that the way back is a product with the same matrix."""

    @staticmethod
    def forward(ctx: Any, x_BH: Tensor, adjacency_BB: Tensor) -> Tensor:
        ctx.adjacency_BB = adjacency_BB
        return torch.mm(adjacency_BB, x_BH)

    @staticmethod
    def backward(ctx: Any, *gradient_BH: Tensor) -> tuple[Tensor, None]:
        return torch.mm(ctx.adjacency_BB, gradient_BH[0]), None


class SymmetricSAGEConv(SAGEConv):  # type: ignore[misc]
    """PyG's SAGEConv for papers that listen to each other: PyG transposes the adjacency in every backward pass."""

    def message_and_aggregate(self, adj_t: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
        """Join the neighbours' values, [C, H] to [B, H]; `adj_t` is sparse, and symmetric where there is a gradient."""
        total_BH: Tensor
        if self.aggr not in ("mean", "add"):
            total_BH = super().message_and_aggregate(adj_t, x)
            return total_BH
        total_BH = _Propagate.apply(x[0], adj_t)  # type: ignore[no-untyped-call]
        if self.aggr == "add":
            return total_BH
        return total_BH / adj_t.crow_indices().diff().clamp(min=1)[:, None]


class Encoder(nn.Module):
    """A stack of SAGEConv layers; without layers a perceptron that sees the features alone."""

    def __init__(self, num_features: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_F: Tensor
        self.scale_F: Tensor
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("scale_F", torch.ones(num_features))
        widths = [num_features] + [config.hidden_channels] * config.num_layers
        self.convs = nn.ModuleList(
            SymmetricSAGEConv(before, after, aggr=config.aggr, normalize=config.normalize)
            for before, after in itertools.pairwise(widths)
        )
        self.perceptron = (
            None
            if config.num_layers
            else _perceptron(num_features, config.hidden_channels, config.hidden_channels)
        )

    def forward(self, x_BF: Tensor, adjacency_BB: Tensor) -> Tensor:
        """Embed the papers of a subgraph, [B, H], from their features and their links, sparse CSR and symmetric."""
        x = self.entry(x_BF)
        for layer in range(self.config.num_layers):
            x = self.layer(layer, x, x, adjacency_BB)
        return x

    def entry(self, x_BF: Tensor) -> Tensor:
        """Bring every feature to mean 0 and deviation 1, as measured on the training graph; without layers, embed."""
        x = (x_BF - self.mean_F) * self.scale_F
        return x if self.perceptron is None else self.perceptron(x)

    def layer(self, layer: int, x_C: Tensor, x_B: Tensor, adjacency_BC: Tensor) -> Tensor:
        """Compute one layer for papers [B] from their own values and from those of the papers they listen to, [C]."""
        x: Tensor = self.convs[layer]((x_C, x_B), adjacency_BC)
        if layer + 1 == self.config.num_layers:
            return x
        return _dropped(x.relu(), self.config.dropout) if self.training else x.relu()


def _dropped(x: Tensor, share: float) -> Tensor:
    """Dropout to the nearest 1/256: eight values by one random number, where torch draws one for each on a CPU."""
    if x.is_cuda:
        return nn.functional.dropout(x, share)
    dropped = min(round(256 * share), 255)
    if not dropped:
        return x
    number = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    is_kept = number.view(torch.uint8)[: x.numel()].view_as(x) >= dropped
    return x * is_kept * (256 / (256 - dropped))


class DotPredictor(nn.Module):
    """The dot product of two embeddings, times a learned scale where the loss is a softmax."""

    def __init__(self, *, scaled: bool) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(())) if scaled else None

    def forward(self, source_SH: Tensor, target_SKH: Tensor) -> Tensor:
        """Score [S, K] for candidates [S, K, H] of each source, or [K, H] shared by all."""
        scale = 1.0 if self.log_scale is None else self.log_scale.exp()
        if target_SKH.dim() == 2:
            return (source_SH * scale) @ target_SKH.T
        if target_SKH.size(1) == 1:  # bmm takes three times as long for single pairs
            return (source_SH[:, None, :] * target_SKH).sum(dim=-1) * scale
        return (target_SKH @ source_SH[:, :, None]).squeeze(-1) * scale


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

    def __init__(
        self, num_features: int, num_evidence: int, config: ModelConfig, *, scaled: bool
    ) -> None:
        """Args: F; D; the configuration; whether dot products get a learned scale (a softmax needs one)."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(num_features, config)
        self.predictor = (
            HadamardPredictor(config.hidden_channels)
            if config.predictor == "mlp"
            else DotPredictor(scaled=scaled)
        )
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
