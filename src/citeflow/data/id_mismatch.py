"""Reasons for which the papers of citations are not found: differences from an id that exists.

Legend: N papers, U unknown ids.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from citeflow.data.diagnosis import quote
from citeflow.data.tables import Column

MAX_UNKNOWN = 1000
"""Unknown ids that are compared."""

_URL = r"^(?i:https?://[^/]+/|doi:|arxiv:|pmid:|urn:[^:]+:)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mismatch:
    """A difference that would make many of the unknown ids known."""

    reason: str
    """Completes `differs from an id of papers.csv ...`."""

    hint: str
    example: tuple[str, str]
    """An unknown id, and the id of a paper that it stands for."""

    num: int
    """Unknown ids that it explains, among those looked at."""

    def describe(self) -> str:
        """Say in one line how the two ids differ."""
        return f"{self.reason}: {quote(self.example[1])}"


def _loose(column: Column) -> Column:
    plain = pc.utf8_normalize(column, form="NFKC")
    return pc.replace_substring_regex(plain, r"[\s\p{Cf}\x{FEFF}]+", "")


_DIFFERENCES: tuple[tuple[Callable[[Column], Column], str, str], ...] = (
    (
        lambda column: pc.replace_substring_regex(column, r"^(-?\d+)\.0*$", r"\1"),
        "looks like a float, while an id is a whole number",
        "write the ids as text or whole numbers; pandas makes floats of a column with gaps",
    ),
    (
        lambda column: pc.utf8_lower(column),
        "differs from an id in upper and lower case only",
        "write the ids of both tables in the same case",
    ),
    (
        lambda column: pc.utf8_normalize(column, form="NFC"),
        "differs from an id in its Unicode form only (NFC or NFD)",
        "write both tables in NFC",
    ),
    (
        lambda column: pc.utf8_lower(pc.replace_substring_regex(column, _URL, "")),
        "differs from an id in the part before it only, such as https://doi.org/",
        "write the ids of both tables with it, or without it",
    ),
    (
        lambda column: pc.replace_substring_regex(column, r"^0+(\d)", r"\1"),
        "differs from an id in leading zeros only",
        "write the ids of both tables with them, or without them",
    ),
    (
        lambda column: pc.utf8_trim(column, "\"'"),
        "differs from an id in quotes around it only",
        "leave out the quotes that are part of the value",
    ),
    (
        _loose,
        "differs from an id in blanks or invisible characters only",
        "write the ids of both tables alike",
    ),
)


def find_mismatch(unknown: Iterable[str], known_N: Column) -> Mismatch | None:
    """Find the difference that explains most of the unknown ids, and half of them at least.

    Args:
        unknown: ids that no paper has, as text.
        known_N: ids of the papers, as text.
    """
    unknown_U = pa.array([key for key in list(unknown)[:MAX_UNKNOWN] if key], pa.string())
    found = None
    for transform, reason, hint in _DIFFERENCES:
        row_U = pc.index_in(transform(unknown_U), value_set=_flat(transform(known_N)))
        num = len(unknown_U) - row_U.null_count
        if 2 * num < max(len(unknown_U), 1) or (found and num <= found.num):
            continue
        index = row_U.is_valid().to_pylist().index(True)
        example = (unknown_U[index].as_py(), known_N[row_U[index].as_py()].as_py())
        found = Mismatch(reason=reason, hint=hint, example=example, num=num)
    return found


def _flat(column: Column) -> Column:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
