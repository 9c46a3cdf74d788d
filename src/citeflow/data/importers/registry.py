"""The registry of importers, and the choice of the one that reads a source.

To add a format, write a module like `konect.py` and add its line to IMPORTERS.
"""

from dataclasses import dataclass
from pathlib import Path

from citeflow import files
from citeflow.data import citation_folder, ogb
from citeflow.data.citation_table import CITATION_COLUMNS
from citeflow.data.diagnosis import MissingColumnError
from citeflow.data.importers import (
    adjacency,
    arxiv,
    bibtex,
    dblp,
    edges,
    graph_xml,
    kinds,
    konect,
    node_edge_tables,
    ogb_raw,
    openalex,
    pajek,
    parquet,
    planetoid,
    reference_lists,
    semantic_scholar,
)
from citeflow.data.importers.base import Evidence, Importer, Notes
from citeflow.data.importers.source import Source, open_source
from citeflow.data.importers.writer import Imported, write_folder
from citeflow.data.tables import find_tables, open_table
from citeflow.errors import CiteflowError, DataError, NotFoundError

VERSION = 2
"""Raise it when the same file is read as another graph than before."""

IMPORTERS: tuple[Importer, ...] = (
    openalex.IMPORTER,
    semantic_scholar.IMPORTER,
    arxiv.IMPORTER,
    dblp.IMPORTER,
    bibtex.IMPORTER,
    konect.IMPORTER,
    pajek.IMPORTER,
    graph_xml.IMPORTER,
    planetoid.IMPORTER,
    ogb_raw.IMPORTER,
    parquet.IMPORTER,
    adjacency.IMPORTER,
    node_edge_tables.IMPORTER,
    reference_lists.IMPORTER,
    edges.IMPORTER,
)
"""Formats; of two that are equally sure the first one reads."""


@dataclass(frozen=True, slots=True)
class Recognized:
    """A source, and the importer that reads it."""

    source: Source
    importer: Importer
    evidence: Evidence

    def write(self, folder: Path) -> Imported:
        """Import it into a folder, inside of `files.new_directory`.

        Raises:
            DataError: something in it is wrong.
        """
        notes = Notes()
        return write_folder(self.importer.read(self.source, notes), notes, folder)

    def digests(self) -> dict[str, str]:
        """Return the sha256 of every file, by its path within the source."""
        root = self.source.path
        return {
            str(file.path.relative_to(root))
            if root.is_dir()
            else file.path.name: files.sha256_of_file(file.path)
            for file in self.source.files
        }


def is_native(folder: Path) -> bool:
    """True for a citation folder whose tables have citeflow's own columns, and for OGB's layout.

    Tables that cannot be read are citeflow's own as well: their reader says what is wrong.
    """
    try:
        ogb.find_files(folder)
    except NotFoundError:
        pass
    else:
        return True
    try:
        citation_folder.find_files(folder)
    except CiteflowError:
        return False
    try:
        open_table(folder, "papers", ["id"])
        open_table(folder, "citations", CITATION_COLUMNS)
    except DataError as error:
        return not isinstance(error, MissingColumnError)
    return True


def native_folder(source: Source) -> Path | None:
    """Return the folder of a source that is a citation folder or OGB's layout, the topmost first.

    Raises:
        DataError: it holds several.
    """
    found = _native_folders(source)
    if len(found) > 1:
        shown = ", ".join(str(folder.relative_to(source.path)) for folder in found[:5])
        raise DataError(f"{source.path} holds {len(found)} datasets", shown, hint="name one")
    return found[0] if found else None


def _native_folders(source: Source) -> list[Path]:
    if source.path.is_file():
        return []
    if is_native(source.path) or _has_tables(source.path):
        return [source.path]  # the reader says what is wrong with tables that are not ours
    below = {
        folder
        for file in source.files
        for folder in file.path.parents
        if source.path in folder.parents
    }
    return [folder for folder in sorted(below)[:100] if is_native(folder)]


def recognize(path: Path) -> Recognized | None:
    """Find the importer of a file that is no archive, or of a folder.

    None for a citation folder, for OGB's own layout, and for what nobody recognizes.

    Raises:
        DataError: it is of a kind that is known and not read, such as a pickle.
    """
    if path.is_dir() and is_native(path):
        return None  # whatever else lies there, and however much
    source = open_source(path)
    if path.is_dir() and (native := _native_folders(source)) and native != [path]:
        return None
    guesses = [
        (evidence.confidence, -order, importer, evidence)
        for order, importer in enumerate(IMPORTERS)
        if (evidence := importer.sniff(source))
    ]
    if guesses:
        _, _, importer, evidence = max(guesses, key=lambda guess: guess[:2])
        if path.is_dir() and _is_broken_folder(path, importer):
            return None
        return Recognized(source, importer, evidence)
    if not (path.is_dir() and _has_tables(path)) and (error := kinds.refusal(source)):
        raise error
    return None


def _has_tables(folder: Path) -> bool:
    return any(find_tables(folder, table) for table in citation_folder.TABLES)


def _is_broken_folder(path: Path, importer: Importer) -> bool:
    """True for a citation folder that its own reader has to refuse.

    A table that is there twice, or one of papers that cannot be read, is an error, and nothing that
    an importer may leave out.
    """
    try:
        citation_folder.find_files(path)
    except CiteflowError as error:
        return isinstance(error, DataError)
    return importer in (edges.IMPORTER, parquet.IMPORTER)


def unknown(path: Path) -> DataError:
    """Build the error for a source that nobody recognizes."""
    source = open_source(path)
    first = source.files[0].head[:40] if source.files else b""
    if source.files and not first:
        source.files[0].read_whole()  # raises what is wrong with its packing
    seen = f"it begins with {first!r}" if first else "it is empty"
    what = f"{path} is no dataset that citeflow knows"
    if path.is_file() and is_native(path.parent):
        return DataError(what, "a table of one", hint=f"name its folder: {path.parent}")
    known = ", ".join(importer.title for importer in IMPORTERS)
    return DataError(what, seen, hint=f"it reads {known}")
