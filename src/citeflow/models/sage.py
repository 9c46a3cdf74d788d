"""GraphSAGE, the encoder of papers (Hamilton, Ying & Leskovec, arXiv 1706.02216).

Legend: B papers of a subgraph, C papers of a bipartite block (B and their neighbors), F features,
H hidden channels.
"""

import itertools
import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from citeflow.config import ModelConfig
from citeflow.models.tensors import at_least_float32

with warnings.catch_warnings():
    # It uses torch.jit, which torch calls deprecated: where warnings are errors, a step would end.
    warnings.simplefilter("ignore")
    from torch_geometric.nn import SAGEConv


class _SymmetricSpMM(torch.autograd.Function):
    """Product with a symmetric adjacency, whose gradient is a product with the same matrix."""

    @staticmethod
    def forward(ctx: Any, x_BH: Tensor, adj_BB: Tensor) -> Tensor:
        ctx.adj_BB = adj_BB
        return torch.mm(adj_BB, x_BH)

    @staticmethod
    def backward(ctx: Any, *gradient_BH: Tensor) -> tuple[Tensor, None]:
        return torch.mm(ctx.adj_BB, gradient_BH[0]), None


class SymmetricSAGEConv(SAGEConv):  # type: ignore[misc]
    """PyG's SAGEConv, but without a transposed adjacency in every backward pass."""

    def message_and_aggregate(self, adj_t: Tensor, x: tuple[Tensor, Tensor]) -> Tensor:
        """Aggregate the values of the neighbors.

        Args:
            adj_t: sparse CSR [B, C]; symmetric [B, B] where a gradient is wanted.
            x: values of the papers of the block [C, H], and of those of B, which are not read.

        Returns:
            [B, H].
        """
        x_CH = at_least_float32(x[0])
        total_BH: Tensor
        with torch.autocast(x_CH.device.type, enabled=False):  # sparse products know float32 only
            if self.aggr not in ("mean", "add"):
                total_BH = super().message_and_aggregate(adj_t, (x_CH, x[1]))
                return total_BH
            total_BH = _SymmetricSpMM.apply(x_CH, adj_t)  # type: ignore[no-untyped-call]
            if self.aggr == "add":
                return total_BH
            return total_BH / adj_t.crow_indices().diff().clamp(min=1)[:, None]

    def combine(self, aggregated_BF: Tensor, x_BF: Tensor) -> Tensor:
        """Do what `forward` does after the neighbors' values are aggregated."""
        x_BH = self.lin_l(aggregated_BF) + self.lin_r(x_BF)
        return nn.functional.normalize(x_BH, dim=-1) if self.normalize else x_BH


class GraphSAGE(nn.Module):
    """A stack of SAGEConv layers; with no layers an MLP on the features alone."""

    def __init__(self, num_features: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.mean_F: Tensor
        self.scale_F: Tensor
        # Buffers, so that a saved model scales new features as those that it was trained on.
        self.register_buffer("mean_F", torch.zeros(num_features))
        self.register_buffer("scale_F", torch.ones(num_features))
        widths = [num_features] + [config.hidden_channels] * config.num_layers
        self.convs = nn.ModuleList(
            SymmetricSAGEConv(before, after, aggr=config.aggr, normalize=config.normalize)
            for before, after in itertools.pairwise(widths)
        )
        self.perceptron: nn.Module | None = None
        if not config.num_layers:
            self.perceptron = mlp(num_features, config.hidden_channels, config.hidden_channels)

    def forward(self, x_BF: Tensor, adj_BB: Tensor) -> Tensor:
        """Embed the papers of a subgraph.

        Args:
            x_BF: their features.
            adj_BB: their adjacency, sparse CSR and symmetric.

        Returns:
            [B, H].
        """
        x = self.transform_features(x_BF)
        for layer in range(self.config.num_layers):
            x = self.layer(layer, x, x, adj_BB)
        return x

    def transform_features(self, x_BF: Tensor) -> Tensor:
        """Standardize features as on the training graph; with no layers, embed them."""
        x = (x_BF - self.mean_F) * self.scale_F
        return x if self.perceptron is None else self.perceptron(x)

    def layer(self, layer: int, x_C: Tensor, x_B: Tensor, adj_BC: Tensor) -> Tensor:
        """Compute one layer on a bipartite block.

        Args:
            layer: its number, from 0.
            x_C: values of all papers of the block in the layer below.
            x_B: of those that are computed.
            adj_BC: neighbors of each paper of B, sparse CSR.

        Returns:
            [B, H].
        """
        return self._activate(layer, self.convs[layer]((x_C, x_B), adj_BC))

    def combine(self, layer: int, aggregated_BF: Tensor, x_BF: Tensor) -> Tensor:
        """Compute one layer from what the papers' neighbors are aggregated to, [B, H]."""
        conv = cast(SymmetricSAGEConv, self.convs[layer])
        return self._activate(layer, conv.combine(aggregated_BF, x_BF))

    def _activate(self, layer: int, x_BH: Tensor) -> Tensor:
        if layer + 1 == self.config.num_layers:
            return x_BH
        x_BH = x_BH.relu()
        return _dropout(x_BH, self.config.dropout) if self.training else x_BH


def mlp(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.ReLU(),
        nn.Linear(hidden_channels, out_channels),
    )


def _dropout(x: Tensor, p: float) -> Tensor:
    """Drop values with probability `p`, rounded to 1/256.

    On a CPU, torch draws one random number per value, which takes longer than the layer itself.
    Here one number of 64 bits decides on eight values, a byte each.
    """
    if x.is_cuda:
        return nn.functional.dropout(x, p)
    dropped = min(round(256 * p), 255)
    if not dropped:
        return x
    number = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    is_kept = number.view(torch.uint8)[: x.numel()].view_as(x) >= dropped
    # A product of floats and booleans takes longer than both of these.
    return x * is_kept.to(x.dtype).mul_(256 / (256 - dropped))
