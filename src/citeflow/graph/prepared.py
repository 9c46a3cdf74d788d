"""The PreparedGraph: a folder of arrays that workers map into memory and share.

Legend: N papers, E citations, F features, V words, P held-out citations, K candidates.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet
import scipy.sparse
from pydantic import ConfigDict

from citeflow import files
from citeflow.data.citation_graph import HeldOut
from citeflow.data.features import NOT_AN_ARRAY
from citeflow.data.tables import reading
from citeflow.data.text import TextModel
from citeflow.errors import CorruptError
from citeflow.graph.candidates import Candidates, HardCandidates
from citeflow.graph.csr import Csr
from citeflow.graph.similar import Cells
from citeflow.utils import records
from citeflow.utils.records import Record

KIND = "PreparedGraph"

REPAIR = "delete the folder and run preprocess again"

TEXT_WORDS = "text_words.parquet"
TEXT_COMPONENTS = "text_components.npy"
"""Files of the text model, where features are made of text; the second one if it has an SVD."""


class GraphFacts(Record):
    """Facts in the manifest of a PreparedGraph: counts, and how it was split."""

    model_config = ConfigDict(extra="ignore")

    dataset: str
    """Name or path of the dataset."""
    split: Literal["own", "date", "random"]
    """Split of the dataset itself, of the newest papers, or of random citations."""
    num_papers: int
    num_citations: int
    """Citations that are left after cleaning, the held-out ones included."""
    num_training_citations: int
    num_valid: int
    num_test: int
    num_negatives: int
    """Papers that each held-out citation is ranked against."""
    num_hard: int = 0
    """Sources with hard candidates."""
    time_cut: bool = False
    """No citation of a paper newer than the source is seen when it is scored."""
    num_similar: int = 0
    """Similar papers of each; 0 where they were not looked for."""
    num_features: int
    """Width of the features; 0 where there are none."""
    dates: bool
    """Papers have dates."""
    later_citations: int
    """Training citations of a paper with a later date, which few real ones are."""
    held_out_in_training: int
    """Held-out citations that are training citations as well; only a dataset's own split has
    any."""
    self_citations: int
    """Dropped citations of a paper by itself."""
    duplicates: int
    """Dropped repetitions."""
    unknown: int
    """Dropped citations of papers that are not in the list of papers."""
    without_date: int = 0
    """Dropped citations of papers without a date."""
    fewest_candidates: int | None = None
    """Of a source: papers that it could be ranked against. None with a dataset's own split."""
    median_candidates: int | None = None
    most_candidates: int | None = None
    short_sources: int = 0
    """Papers, or citations of a random split, that are not held out as they have far fewer."""
    remarks: tuple[str, ...] = ()
    """What was taken for something else than it says, left out, or looks wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedGraph:
    """A citation graph ready for training; all arrays are read-only maps of files.

    Papers are not in the order of the raw dataset: those that cite each other have rows near each
    other (see `graph.reorder`), so that a few thousand consecutive rows hold most of their own
    citations. All row numbers, those of the split included, are of this order; `ids` names the
    paper of each row.
    """

    path: Path
    """Its folder."""

    manifest: files.Manifest
    """Content of its manifest.json."""

    facts: GraphFacts
    """Counts and names."""

    x_NF: np.ndarray | None
    """Features, float32, or float16 where the dataset has them so."""

    day_N: np.ndarray | None
    """Date of each paper in days since 1970-01-01, int32; a usual one where it is not known."""

    is_dated_N: np.ndarray | None = None
    """False for papers whose date is not known; None if all are."""

    references: Csr
    """Training citations, from the citing to the cited paper."""

    citations: Csr
    """Training citations, from the cited to the citing paper."""

    neighbors: Csr
    """Training citations in both directions, without repetition."""

    similar: Csr | None = None
    """Papers whose features are most alike, in both directions; None where it was not wanted or
    there are no features."""

    cells: Cells | None = None
    """The papers of a large graph by cells, where `similar` was found by them."""

    valid: HeldOut
    """Citations held out for validation."""

    test: HeldOut
    """Citations held out for the test."""

    hard: HardCandidates = field(default_factory=HardCandidates.none)
    """Hard candidates of the held-out citations' sources, chosen from the training citations."""

    @classmethod
    def open(cls, path: Path, kind: str = KIND) -> "PreparedGraph":
        """Map a prepared graph into memory; nothing is read but the manifest.

        Args:
            path: its folder.
            kind: that of an artifact with the same files, where it is no PreparedGraph.

        Raises:
            NotFoundError: there is none.
            CorruptError: a file is missing, was cut or is no array.
        """
        manifest = files.read_manifest(path, kind)
        if "hard_source.npy" not in manifest.files:
            hint = "run the pipeline again: this version prepares the graph anew"
            raise CorruptError("a graph of an earlier version", path, hint=hint)
        return cls(
            path=path,
            manifest=manifest,
            facts=records.load(
                GraphFacts, manifest.facts, name=kind, error=CorruptError, hint=REPAIR
            ),
            x_NF=map_array(path, "x") if "x.npy" in manifest.files else None,
            day_N=map_array(path, "day") if "day.npy" in manifest.files else None,
            is_dated_N=map_array(path, "dated") if "dated.npy" in manifest.files else None,
            references=map_csr(path, "references"),
            citations=map_csr(path, "citations"),
            neighbors=map_csr(path, "neighbors"),
            similar=map_csr(path, "similar") if "similar_ptr.npy" in manifest.files else None,
            cells=map_cells(path) if "cell_ptr.npy" in manifest.files else None,
            valid=map_held_out(path, "valid"),
            test=map_held_out(path, "test"),
            hard=map_hard(path),
        )

    @property
    def num_papers(self) -> int:
        """Number of papers, N."""
        return self.references.num_rows

    def candidates(self) -> Candidates:
        """Return the rule that says which papers a source may be ranked against."""
        linked = self.neighbors if self.day_N is None else self.references
        return Candidates(linked, (self.valid, self.test), self.day_N, self.is_dated_N)

    def bm25(self) -> scipy.sparse.csr_matrix | None:
        """Map the weights of each paper's words, float32 [N, V], if the dataset has text."""
        if "bm25_weight.npy" not in self.manifest.files:
            return None
        names = ("bm25_weight", "bm25_word", "bm25_rowptr")
        weight_E, word_E, rowptr_N1 = (np.asarray(map_array(self.path, name)) for name in names)
        return scipy.sparse.csr_matrix((weight_E, word_E, rowptr_N1))

    def ids(self) -> list[int] | list[str]:
        """Read the identifier of each paper."""
        column = self.column("id")
        assert column is not None
        ids: list[int] | list[str] = column.to_pylist()
        return ids

    def titles(self) -> list[str] | None:
        """Read the title of each paper, if the dataset has titles."""
        column = self.column("title")
        return None if column is None else column.to_pylist()

    def column(self, name: str) -> pyarrow.ChunkedArray | None:
        """Read what is known of each paper, `id` or `title`; None if the dataset has none.

        As a list, millions of them would take gigabytes.
        """
        file = self.path / "papers.parquet"
        with reading(file):
            names = pyarrow.parquet.read_schema(file).names
            if name not in names:
                return None
            return pyarrow.parquet.read_table(file, columns=[name]).column(name)

    def text_model(self) -> TextModel | None:
        """Read the model that makes features of a text, if those of the papers are made of it."""
        if TEXT_WORDS not in self.manifest.files:
            return None
        file = self.path / TEXT_WORDS
        with reading(file):
            table = pyarrow.parquet.read_table(file)
        has_svd = TEXT_COMPONENTS in self.manifest.files
        return TextModel(
            word_V=np.asarray(table.column("word"), dtype=object),
            idf_V=np.asarray(table.column("idf"), dtype=np.float32),
            component_FV=map_array(self.path, Path(TEXT_COMPONENTS).stem) if has_svd else None,
        )


def map_array(path: Path, name: str) -> np.ndarray:
    """Map `name`.npy into memory.

    Raises:
        CorruptError: it is no array of numbers.
    """
    file = path / f"{name}.npy"
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (*NOT_AN_ARRAY, EOFError) as error:
        # An errno tells a failure of the disk, which is not the file's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise CorruptError("not an array of numbers", file, hint=REPAIR) from None
    return array


def map_csr(path: Path, name: str) -> Csr:
    """Map the rows of a graph."""
    return Csr(map_array(path, f"{name}_ptr"), map_array(path, f"{name}_index"))


def map_cells(path: Path) -> Cells:
    """Map the cells of a large graph."""
    center_CF = np.asarray(map_array(path, "cell_center"))
    return Cells(center_CF=center_CF, members=map_csr(path, "cell"))


def map_held_out(path: Path, name: str) -> HeldOut:
    """Map the held-out citations of a split."""
    return HeldOut(
        source_P=map_array(path, f"{name}_source"),
        target_P=map_array(path, f"{name}_target"),
        negative_PK=map_array(path, f"{name}_negative"),
    )


def map_hard(path: Path) -> HardCandidates:
    """Map hard candidates."""
    return HardCandidates(
        map_array(path, "hard_source"),
        Csr(map_array(path, "hard_rowptr"), map_array(path, "hard_candidate")),
    )
