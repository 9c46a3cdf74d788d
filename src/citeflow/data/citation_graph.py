"""What every reader of a raw dataset returns.

Legend: N papers, E citations, F features, P held-out citations, K candidates.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Citations of one part of a split, each with the papers that it is ranked against."""

    source_P: np.ndarray
    """Row of the citing paper, int32."""

    target_P: np.ndarray
    """Row of the cited paper, int32."""

    negative_PK: np.ndarray
    """Rows of papers that the source does not cite, int32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSplit:
    """A split that a dataset brings itself; the graph's `edge_2E` holds its training citations only."""

    valid: HeldOut
    test: HeldOut


@dataclass(frozen=True, kw_only=True, slots=True)
class CitationGraph:
    """A citation network as it was read: nothing dropped yet but citations of unknown papers, if that was asked."""

    edge_2E: np.ndarray
    """Rows of citing and cited paper, int32, in the order of the file; self-citations and duplicates included."""

    id_N: np.ndarray
    """Identifier of each paper, an array of int64 or of str objects."""

    title_N: np.ndarray | None = None
    """Title of each paper, str objects."""

    x_NF: np.ndarray | None = None
    """Features, float32, finite; may be a map of a file that does not fit into memory."""

    day_N: np.ndarray | None = None
    """Date of each paper in days since 1970-01-01, int32; a bare year is its first of January."""

    split: OwnSplit | None = None
    """The dataset's own split."""

    counts: dict[str, int] = field(default_factory=dict)
    """What the reader dropped, by reason."""
