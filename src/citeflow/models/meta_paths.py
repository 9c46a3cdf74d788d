"""The kinds of paths between two papers, by the relations that they follow."""

from collections.abc import Sequence
from dataclasses import dataclass

Prefix = tuple[tuple[str, ...], str]
"""Hops of a path but for its last one, and how the papers on them are weighted."""

REVERSE = {
    "references": "citations",
    "citations": "references",
    "neighbors": "neighbors",
    "similar": "similar",
}


@dataclass(frozen=True, slots=True)
class MetaPath:
    """A kind of path from the source to a candidate, by the relations that it follows.

    Its feature is ln(1 + scale * sum over the paths of the product of the weights of the papers
    between).
    """

    name: str
    hops: tuple[str, ...]
    weight: str
    """Weight of a paper with degree d along the next hop: "one", "log" (1 / ln d) or "inverse" (1 /
    d)."""

    scale: float
    """Brings the sum to a range where the logarithm tells weak from strong."""

    @property
    def last(self) -> str:
        """The hop that ends at the candidate."""
        return self.hops[-1]

    @property
    def prefix(self) -> Prefix:
        """The part that it shares with the paths that differ from it in the last hop only."""
        return prefix_of(self.hops[:-1], self.weight)


PATHS = (
    MetaPath("common_neighbors", ("neighbors", "neighbors"), "one", 1.0),
    MetaPath("adamic_adar", ("neighbors", "neighbors"), "log", 1.0),
    MetaPath("resource_allocation", ("neighbors", "neighbors"), "inverse", 10.0),
    MetaPath("reference_of_reference", ("references", "references"), "inverse", 10.0),
    MetaPath("bibliographic_coupling", ("references", "citations"), "inverse", 10.0),
    MetaPath("co_citation", ("references", "citations", "references"), "inverse", 100.0),
    MetaPath("reference_chain", ("references", "references", "references"), "inverse", 100.0),
    MetaPath("coupling_of_reference", ("references", "references", "citations"), "inverse", 100.0),
    MetaPath("citation_of_coupled", ("references", "citations", "citations"), "inverse", 100.0),
    MetaPath("cited_together", ("citations", "references"), "inverse", 10.0),
    MetaPath("reference_of_similar", ("similar", "references"), "one", 1.0),
)
"""The first three are the training-free predictors of Liben-Nowell & Kleinberg (2007), Adamic &
Adar (2003) and Zhou, Lü & Zhang (2009); the others follow the direction of citations."""

BASELINE_PATHS = PATHS[:3]


def prefix_of(hops: tuple[str, ...], weight: str) -> Prefix:
    """Key of a prefix; the first hop passes no paper, so it is the same for all weights."""
    return hops, weight if len(hops) > 1 else "one"


def prefixes_of(paths: Sequence[MetaPath]) -> list[tuple[Prefix, str]]:
    """Distinct pairs of prefix and last hop."""
    return list(dict.fromkeys((path.prefix, path.last) for path in paths))
