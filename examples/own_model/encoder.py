"""An encoder of papers: two graph convolutions (Kipf & Welling, arXiv 1609.02907)."""

from torch import nn


class GCN(nn.Module):
    def __init__(self, settings):
        super().__init__()
        width = settings.hidden_channels
        self.first = nn.Linear(settings.num_features, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x, adj):  # features [B, F], sparse adjacency [B, B] -> embeddings [B, H]
        degree = (1 + adj.crow_indices().diff())[:, None] ** 0.5
        for layer in (self.first, self.second):
            x = layer(x if layer is self.first else self.dropout(x.relu()))
            x = (adj @ (x / degree) + x / degree) / degree
        return x


def build(settings):
    return GCN(settings)
