"""Papers that citations are asked for: of the graph, or new ones, with all that is known of them.

Legend: N papers, F features, R references.
"""

import difflib
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from citeflow.data.citation_graph import DAYS_PER_YEAR
from citeflow.data.dates import ISO_DATE
from citeflow.data.diagnosis import plural, quote
from citeflow.data.id_mismatch import find_mismatch
from citeflow.data.text import TextModel, join_text
from citeflow.errors import ConfigError, DataError, NotFoundError
from citeflow.graph.prepared import PreparedGraph
from citeflow.utils.records import Float, Record, Str

SEARCHED = 100_000
"""Identifiers that are compared with one that does not exist."""

MAX_SUGGESTED = 20
"""Unknown identifiers of one call that others are suggested for: each takes a search."""

NUM_SHOWN = 3
"""Unknown identifiers that a remark shows."""


class QueryPaper(Record):
    """A paper that citations are asked for: `paper`, or whatever is known of a new one."""

    id: Str = ""
    """Your own name for it, which its answer repeats."""

    paper: Str = ""
    """Id of a paper of the graph; the other fields describe a new one."""

    title: Str = ""

    abstract: Str = ""

    references: tuple[Str, ...] = ()
    """Ids of papers of the graph that it cites."""

    date: Str = ""
    """ISO date or year; by default that of the newest paper of the graph."""

    features: tuple[Float, ...] | None = None
    """Features, where those of the dataset are not made of text."""

    @property
    def text(self) -> str:
        """Title and abstract, as the features of papers are made of them."""
        return join_text(self.title, self.abstract).strip()


@dataclass(frozen=True, kw_only=True, slots=True)
class NewPaper:
    """A query that is not in the graph, in rows and numbers."""

    x_F: np.ndarray | None
    """Features; None where the graph has none."""

    has_own_features: bool
    """False where they are the mean of those of its references."""

    reference_R: np.ndarray
    """Rows that it cites, ascending, int32."""

    day: int
    """Date in days since 1970-01-01; 0 where the graph has none."""

    same_title: int | None
    """Row of a paper with the same title, which is no candidate."""

    remarks: tuple[str, ...]
    """What was left out, and where the model is out of its depth."""


class Papers(ABC):
    """Identifiers and titles of a graph's papers, and their rows."""

    ids: Sequence[int] | Sequence[str]
    """Identifier of each row."""

    titles: Sequence[str] | None
    """Title of each row, if the dataset has titles."""

    @abstractmethod
    def find(self, paper: str) -> int | None:
        """Return the row of an identifier; None if no paper has it."""

    @abstractmethod
    def suggest(self, paper: str) -> str:
        """Ask whether identifiers that resemble an unknown one are meant; "" where none does."""

    @abstractmethod
    def find_title(self, title: str) -> int | None:
        """Return the row of the first paper with a title, whatever its case and punctuation."""

    def get(self, paper: str) -> int:
        """Return the row of an identifier.

        Raises:
            NotFoundError: no paper has it.
        """
        row = self.find(paper)
        if row is None:
            hint = self.suggest(paper) or f"ids look like {self.ids[0]}"
            raise NotFoundError("no paper with this id", paper, hint=hint)
        return row


class PaperIndex(Papers):
    """All of them in memory, as they are in a PreparedGraph."""

    def __init__(self, graph: PreparedGraph) -> None:
        """Read the identifiers."""
        self.ids = graph.ids()
        self.titles = graph.titles()
        self._row_of = {str(each): row for row, each in enumerate(self.ids)}
        self._num_suggested = 0

    def find(self, paper: str) -> int | None:
        """Return the row of an identifier; None if no paper has it."""
        name = paper.strip()
        row = self._row_of.get(name)
        return self._row_of.get(unicodedata.normalize("NFC", name)) if row is None else row

    def suggest(self, paper: str) -> str:
        """Ask whether identifiers that resemble an unknown one are meant; "" where none does."""
        if self._num_suggested >= MAX_SUGGESTED:
            return ""
        self._num_suggested += 1
        # Case, or https://doi.org/ before it, is more than difflib allows of a short identifier.
        known = pa.array(self._searched)
        mismatch = find_mismatch([paper.strip()], known)
        close = (
            [mismatch.example[1]]
            if mismatch
            else difflib.get_close_matches(paper.strip(), self._searched, n=3)
        )
        return f"did you mean {' or '.join(close)}?" if close else ""

    def find_title(self, title: str) -> int | None:
        """Return the row of the first paper with a title, whatever its case and punctuation."""
        return self._row_of_title.get(plain(title)) if plain(title) else None

    @cached_property
    def _searched(self) -> list[str]:
        return list(self._row_of)[:SEARCHED]

    @cached_property
    def _row_of_title(self) -> dict[str, int]:
        titles = self.titles or []
        return {plain(titles[row]): row for row in reversed(range(len(titles)))}


def plain(title: str) -> str:
    """Return the letters and digits of a title, in lower case."""
    return "".join(re.findall(r"\w+", title.casefold()))


class QueryReader:
    """Turns queries into rows, features and dates of one graph."""

    def __init__(self, graph: PreparedGraph, index: Papers) -> None:
        """Keep what all queries need; the text model is read with the first text."""
        self._graph = graph
        self._index = index

    def read(self, query: QueryPaper) -> int | NewPaper:
        """Return the row of a paper of the graph, or a new paper.

        Raises:
            ConfigError: the query contradicts itself, or a value is no date.
            DataError: nothing is known of the paper, or its features do not fit.
            NotFoundError: no paper has the identifier, or any of the references.
        """
        if not query.paper:
            return self._read_new(query)
        if any(value for name, value in query if name not in ("id", "paper")):
            hint = "a paper of the graph has its own text, references and date"
            raise ConfigError("either a paper of the graph or a new one", query.paper, hint=hint)
        return self._index.get(query.paper)

    def _read_new(self, query: QueryPaper) -> NewPaper:
        if not (query.text or query.references or query.features is not None):
            hint = "give its title and abstract, its references, or its features"
            raise DataError("nothing is known of the paper", query.id or "no text", hint=hint)
        reference_R, remarks = self._read_references(query.references)
        x_F = self._read_features(query, remarks)
        has_own_features = x_F is not None
        if x_F is None and self._graph.x_NF is not None:
            x_F = self._mean_features(reference_R, query, remarks)
        elif x_F is None and not len(reference_R):
            hint = "--references ID,ID"
            raise ConfigError("this model reads references alone", "none given", hint=hint)
        if not len(reference_R):
            remarks.append(
                f"no references: the model is out of its depth, it has {self._kind} and "
                "popularity alone"
            )
        same_title = self._index.find_title(query.title) if query.title else None
        if same_title is not None:
            remarks.append(
                f"the graph has a paper with this title, which is left out: "
                f"{self._index.ids[same_title]}; ask for it with --paper"
            )
        return NewPaper(
            x_F=x_F,
            has_own_features=has_own_features,
            reference_R=reference_R,
            day=self._read_date(query.date, remarks),
            same_title=same_title,
            remarks=tuple(remarks),
        )

    def _read_references(self, references: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return the rows of the references that exist, and remarks on the others."""
        given = [name.strip() for name in references if name.strip()]
        distinct = list(dict.fromkeys(given))
        row_of = {name: self._index.find(name) for name in distinct}
        known = [row for row in row_of.values() if row is not None]
        unknown = [name for name, row in row_of.items() if row is None]
        remarks = []
        if len(given) > len(distinct):
            remarks.append(f"{plural(len(given) - len(distinct), 'repeated reference')} left out")
        if unknown:
            shown = [
                quote(name) + (f" ({hint})" if (hint := self._index.suggest(name)) else "")
                for name in unknown[:NUM_SHOWN]
            ]
            more = f" and {len(unknown) - NUM_SHOWN} more" if len(unknown) > NUM_SHOWN else ""
            said = f"{len(unknown)} of {plural(len(distinct), 'reference')}"
            if not known:
                hint = f"an id is {self._index.ids[0]}"
                raise NotFoundError(
                    "no reference is in the graph", f"{', '.join(shown)}{more}", hint=hint
                )
            remarks.append(f"{said} left out, not in the graph: {', '.join(shown)}{more}")
        return np.unique(np.array(known, dtype=np.int32)), remarks

    def _read_features(self, query: QueryPaper, remarks: list[str]) -> np.ndarray | None:
        """Return the features that a query has of its own, if the model can use them.

        Raises:
            DataError: there are more or fewer than the model takes.
        """
        if query.features is not None:
            return self._check_features(query.features)
        if not query.text:
            return None
        if self.text_model is None:
            remarks.append(
                "the text is not used: the features of this dataset are "
                + ("not made of text" if self._graph.x_NF is not None else "its citations alone")
            )
            return None
        x_F: np.ndarray = self.text_model.features([query.text])[0]
        if not x_F.any():
            remarks.append(f"the text model knows no word of the text: {quote(query.text)}")
            return None
        return x_F

    def _check_features(self, features: Sequence[float]) -> np.ndarray:
        width = 0 if self._graph.x_NF is None else self._graph.x_NF.shape[1]
        if len(features) != width:
            hint = f"the papers of the graph have {width}" if width else "leave them out"
            raise DataError("wrong number of features", len(features), hint=hint)
        return np.array(features, dtype=np.float32)

    def _mean_features(
        self, reference_R: np.ndarray, query: QueryPaper, remarks: list[str]
    ) -> np.ndarray:
        """Return the mean features of some papers, a stand-in for those of one that cites them.

        Raises:
            DataError, ConfigError: there are none, so that nothing is known of the paper.
        """
        assert self._graph.x_NF is not None
        if not len(reference_R):
            width = self._graph.x_NF.shape[1]
            if self.text_model is None:
                hint = f"--features FILE.npy with {width} numbers, or --references ID,ID"
                raise ConfigError("this model does not read text", quote(query.text), hint=hint)
            hint = "a longer text, in the language of the papers, or --references ID,ID"
            raise DataError("no word of the text is known", quote(query.text), hint=hint)
        remarks.append(f"no {self._kind} of its own: it has the mean of its references'")
        mean_F = np.asarray(self._graph.x_NF[reference_R], dtype=np.float64).mean(axis=0)
        if self.text_model is not None:
            mean_F /= max(np.linalg.norm(mean_F), np.finfo(np.float32).tiny)
        return np.asarray(mean_F, dtype=np.float32)

    def _read_date(self, text: str, remarks: list[str]) -> int:
        """Return a date in days; where none is given, that of the newest paper.

        Raises:
            ConfigError: it is none.
        """
        newest = self._newest_day
        if not text.strip():
            return newest
        day = parse_day(text)
        if self._graph.day_N is None:
            remarks.append("the date is not used: the papers of the graph have none")
            return 0
        years = (day - newest) / DAYS_PER_YEAR
        if years > 1:
            remarks.append(
                f"dated {years:.0f} years after the newest paper of the graph: the model has seen "
                "no paper that cites so late"
            )
        return day

    @property
    def _kind(self) -> str:
        return "features" if self.text_model is None else "text"

    @cached_property
    def text_model(self) -> TextModel | None:
        """The model that makes features of a text, read when it is first needed."""
        return self._graph.text_model()

    @cached_property
    def _newest_day(self) -> int:
        day_N, is_dated_N = self._graph.day_N, self._graph.is_dated_N
        if day_N is None:
            return 0
        return int((day_N if is_dated_N is None else day_N[is_dated_N]).max())


def parse_day(text: str) -> int:
    """Return an ISO date, or the first day of a year or month, in days since 1970-01-01.

    Raises:
        ConfigError: it is none.
    """
    try:
        if not re.fullmatch(ISO_DATE, text.strip()):
            raise ValueError(text)
        return int(np.datetime64(text.strip()[:10], "D").astype(int))
    except ValueError:
        raise ConfigError("not a date", quote(text), hint="such as 2003-05-01 or 2003") from None
