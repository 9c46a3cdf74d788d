"""The citation graph that every reader of a raw dataset returns.

Legend: N papers, E citations, F features, V words, P held-out citations, K candidates.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse

from citeflow.data.text import TextModel

DAYS_PER_YEAR = 365.25


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOut:
    """Held-out citations of one split, each with the candidates that it is ranked against."""

    source_P: np.ndarray
    """Row of the citing paper, int32."""

    target_P: np.ndarray
    """Row of the cited paper, int32."""

    negative_PK: np.ndarray
    """Rows of papers that the source does not cite, int32: its negative samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnSplit:
    """A split that comes with a dataset; `edge_2E` of its graph holds training citations only."""

    valid: HeldOut
    test: HeldOut


@dataclass(frozen=True, kw_only=True, slots=True)
class CitationGraph:
    """A citation network as it was read, before it is cleaned and split."""

    edge_2E: np.ndarray
    """Rows of citing and cited paper, int32, in the order of the file, with self-citations and
    duplicates. Citations of unknown papers are dropped already, with `data.unknown=drop`."""

    id_N: np.ndarray
    """Identifier of each paper, an array of int64 or of str objects."""

    title_N: np.ndarray | None = None
    """Title of each paper, str objects."""

    x_NF: np.ndarray | None = None
    """Features, finite float32 or float16; may be a map of a file larger than the memory."""

    text_model: TextModel | None = None
    """The model that made the features, where they are made of text."""

    bm25_NV: scipy.sparse.csr_matrix | None = None
    """Weights of the words of title and abstract, float32, where there is text (`data.bm25`)."""

    day_N: np.ndarray | None = None
    """Date of each paper in days since 1970-01-01, int32; a bare year is its first of January."""

    is_dated_N: np.ndarray | None = None
    """False for papers whose date is not known, for which `day_N` has a usual one; None if all
    are."""

    split: OwnSplit | None = None
    """The dataset's own split."""

    counts: dict[str, int] = field(default_factory=dict)
    """Number of citations that the reader dropped, by reason."""

    features: tuple[str, ...] = ()
    """Names of the columns, and of the array, that the features come from."""

    unused: dict[str, list[str]] = field(default_factory=dict)
    """Columns of papers that are not used, by the reason."""

    remarks: tuple[str, ...] = ()
    """What the reader took, left out and found odd, a line each, for the log and the report."""
