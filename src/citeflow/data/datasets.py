"""The stage `download`: bring a dataset into `data_root` by name, path or URL, and read it again.

To add a dataset with a name, write a module like `ogbl_citation2.py` and add its line to DATASETS.
To add a file format that is imported, add it to `importers`; for one that is read as it is, write a
module like `ogb.py` and add its line to FORMATS.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ConfigDict, Field, JsonValue

from citeflow import files
from citeflow.config import Config, DataConfig
from citeflow.data import citation_folder, ogb, ogbl_citation2, synthetic
from citeflow.data.citation_graph import CitationGraph
from citeflow.data.download import local_path
from citeflow.data.importers import registry
from citeflow.data.importers.provenance import Provenance
from citeflow.data.importers.source import is_archive, open_source
from citeflow.data.raw_store import KIND, RawFormat, RawStore, Source, archive_name, shown_path
from citeflow.errors import ConfigError, CorruptError, NotFoundError, named_as
from citeflow.utils import records
from citeflow.utils.logging import log
from citeflow.utils.records import Record

DATASETS: dict[str, Callable[[RawStore, Config], Path]] = {
    synthetic.NAME: synthetic.download,
    ogbl_citation2.NAME: ogbl_citation2.download,
}
"""Datasets by name, each with the function that brings it into the store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphFormat(RawFormat):
    """A layout of the files of a citation graph, and its reader."""

    read: Callable[[Path, DataConfig], CitationGraph]


FORMATS: dict[str, GraphFormat] = {
    "ogb": GraphFormat(
        find_files=ogb.find_files,
        read=lambda raw, config: ogb.read_ogb(raw),  # no setting applies
        description=ogb.DESCRIPTION,
    ),
    "folder": GraphFormat(
        find_files=citation_folder.find_files,
        read=citation_folder.read_folder,
        description=citation_folder.DESCRIPTION,
    ),
}
"""File formats, by the name that a manifest has for them."""

_ARCHIVE = r"\.(zip|tgz|tar(\.(gz|bz2|xz))?)$"


def dataset_names() -> tuple[str, ...]:
    """Return the names that `download_dataset` knows, for help texts and form choices."""
    return tuple(DATASETS)


def download_dataset(dataset: str, *, data_root: Path, config: Config) -> Path:
    """Bring a dataset into `data_root`, unless it is there already; its tables are not parsed yet.

    Args:
        dataset: a name of `dataset_names`, a citation folder, a file or a folder that an importer
            reads, an archive of either (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz), or the URL of a
            file or an archive, to which `#sha256=...` may be added; `file://` may also name a
            folder.
        data_root: the result is `raw/<16 hex digits>` below it.
        config: settings of generated datasets.

    Returns:
        A RawDataset.

    Raises:
        ConfigError: the part of a URL behind `#` is no digest, or belongs to a folder.
        NotFoundError: there is no such dataset, or a table is missing in it.
        DataError: the dataset is damaged or ambiguous, or has another digest than expected.
        UnavailableError: a server does not deliver.
    """
    store = RawStore(data_root, FORMATS, _convert)
    if dataset in DATASETS:
        return DATASETS[dataset](store, config)
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:/", dataset):
        return _download_url(store, dataset)
    path = Path(dataset).expanduser()
    if dataset and path.is_dir():
        return _add_folder(store, path, path.resolve().name)
    if path.is_file():
        return store.add_archive(path, {"dataset": shown_path(_without_suffix(path.name))})
    raise _unknown(dataset)


BYTES_PER_CITATION = {".csv": 12, ".gz": 4, ".parquet": 5, ".npy": 8}
"""Bytes of a citation in a file, by its suffix: two ids of six digits, or less where compressed."""


def approximate_citations(raw: Path) -> int:
    """Return about how many citations a RawDataset has, without reading its tables."""
    manifest = files.read_manifest(raw, KIND)
    named = [name for name in manifest.files if re.search(r"citations|edge\.csv", name)]
    return sum(
        manifest.files[name].bytes // BYTES_PER_CITATION.get(Path(name).suffix, 4) for name in named
    )


def read_raw(raw: Path, config: DataConfig) -> CitationGraph:
    """Read the papers and citations of a RawDataset, after a check of its digests.

    Raises:
        NotFoundError: there is none.
        CorruptError: a file was changed since it was stored.
        DataError: something in the tables is wrong.
    """
    manifest = files.verify(raw, KIND)
    name = manifest.text("format")
    if name not in FORMATS:
        raise CorruptError("RawDataset in an unknown format", f"{raw}: {name}")
    imported = records.load(_Imported, manifest.facts, error=CorruptError)
    source = Provenance(folder=raw, source=imported.origin, columns=imported.columns)
    if imported.is_imported:
        with source.named():
            graph = FORMATS[name].read(raw, config)
        remarks = (*imported.remarks, *map(source.rewrite, graph.remarks))
        graph = replace(graph, remarks=remarks)
    else:
        with named_as(raw, imported.origin or raw):
            graph = FORMATS[name].read(raw, config)
    for text in graph.remarks:
        log("data", text)
    return graph


class _Imported(Record):
    """Facts of a RawDataset that tell where it came from."""

    model_config = ConfigDict(extra="ignore")

    origin: str = ""
    is_imported: bool = False
    columns: Mapping[str, str] = Field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def _add_folder(store: RawStore, folder: Path, name: str) -> Path:
    if registry.is_native(folder):
        return store.add_folder(folder)
    source = open_source(folder)
    if source.only and is_archive(source.only.path):
        return store.add_archive(source.only.path, {"dataset": shown_path(name)})
    if raw := _convert(store, folder, name, shown_path(folder)):
        return raw
    return store.add_folder(registry.native_folder(source) or folder)


def _download_url(store: RawStore, text: str) -> Path:
    url, _, fragment = text.partition("#")
    match = re.fullmatch(r"sha256=([0-9a-f]{64})", fragment.lower())
    if fragment and not match:
        what = "not a digest behind a URL"
        raise ConfigError(what, f"#{fragment}", hint="#sha256= and 64 hex digits")
    if (folder := local_path(url)) and folder.is_dir():
        if match:
            hint = "leave it out, or name an archive"
            raise ConfigError("a folder has no sha256", folder, hint=hint)
        return _add_folder(store, folder, folder.name)
    name = _without_suffix(archive_name(url))
    return store.add_url(Source(dataset=name, url=url, sha256=match[1] if match else None))


def _convert(store: RawStore, path: Path, name: str, origin: str) -> Path | None:
    """Import what is in another format; None for an archive and for what the store knows."""
    if path.is_file() and is_archive(path):
        return None
    found = registry.recognize(path)
    if found is None:
        if path.is_file() and not re.search(_ARCHIVE, path.name, re.IGNORECASE):
            raise registry.unknown(path)
        return None
    log("import", found.importer.title, because=found.evidence.because)
    settings: dict[str, JsonValue] = {
        "format": found.importer.name,
        "files": dict(found.digests()),
        "version": registry.VERSION,
    }
    return store.generate(name, settings, lambda folder: _write(found, folder), {"origin": origin})


def _write(found: registry.Recognized, folder: Path) -> dict[str, JsonValue]:
    imported = found.write(folder)
    said = [f"read as {found.importer.title}: {found.evidence.because}", *imported.lines()]
    return {"is_imported": True, "columns": dict(imported.names), "remarks": list(said)}


def _without_suffix(name: str) -> str:
    return re.sub(_ARCHIVE, "", name, flags=re.IGNORECASE) or name


def _unknown(dataset: str) -> NotFoundError:
    close = difflib.get_close_matches(dataset.lower(), DATASETS, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]}? " if close else ""
    known = f"it is {', '.join(DATASETS)}, a folder, a file, an archive or a URL"
    return NotFoundError("no such dataset", dataset or "''", hint=suggestion + known)
