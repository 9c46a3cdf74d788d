"""Records that list their own references, as most databases of papers export them.

Legend: B records of one batch, R references of them.
"""

import itertools
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from citeflow.data.importers import base
from citeflow.data.importers.base import Citations, Papers

Id = str | int | None


def papers_and_references(
    ids: Sequence[Id],
    references: Sequence[Collection[Id] | None],
    *,
    title: Sequence[str | None],
    date: Sequence[str | None],
    abstract: Sequence[str | None] | None = None,
) -> tuple[Papers, Citations]:
    """Make the two batches of records."""
    id_B = base.text(ids)
    cited = [() if each is None else each for each in references]
    num_B = np.fromiter(map(len, cited), np.int64, len(cited))
    citing_R = id_B.take(pa.array(np.repeat(np.arange(len(cited)), num_B)))
    cited_R = base.text(list(itertools.chain.from_iterable(cited)))
    return (
        base.papers(id_B, title=title, abstract=abstract, date=date),
        base.citations(citing_R, cited_R),
    )


def abstract_of_index(index: dict[str, list[int]] | None) -> str | None:
    """Put an abstract together that is given as the positions of each word."""
    if not index:
        return None
    places = sorted((at, word) for word, positions in index.items() for at in positions)
    return " ".join(word for _, word in places)
