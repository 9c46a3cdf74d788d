"""BibTeX whose entries name the keys of what they cite in a field `cites` or `references`.

Read by bibtexparser, which goes on behind an entry that it cannot read; such entries are counted.
"""

import re

from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import REFERENCES, date_text, plain
from citeflow.data.importers.records import papers_and_references
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

ENTRY = re.compile(rb"^[ \t]*@\w+\s*[{(]\s*[^\s,={}]+\s*,", re.MULTILINE)
KEYS = re.compile(r"[\s,;{}]+")
NOT_READ = "entries that are no BibTeX, or repeat a key"


def _is_bibtex(file: SourceFile) -> bool:
    return bool(ENTRY.search(file.head))


def sniff(source: Source) -> Evidence | None:
    """Recognize entries."""
    if not (found := source.where(_is_bibtex)):
        return None
    return Evidence(CERTAIN - 20, f"{found[0].path.name} has entries of BibTeX")


def read(source: Source, notes: Notes) -> Stream:
    """Read entries and the keys that they cite."""
    for file in source.where(_is_bibtex):
        yield from _read_file(file, notes)


def _read_file(file: SourceFile, notes: Notes) -> Stream:
    bibtexparser = base.library("bibtexparser")
    middlewares = base.library("bibtexparser.middlewares")
    with file.damage_as_data_error():
        content = file.read_whole().decode("utf-8-sig")
    stack = [
        middlewares.ResolveStringReferencesMiddleware(),
        middlewares.RemoveEnclosingMiddleware(),
    ]
    try:
        library = bibtexparser.parse_string(content, parse_stack=stack)
    except Exception as error:  # of bibtexparser, which raises whatever its code runs into
        what = f"{file.path}: not BibTeX that bibtexparser reads"
        raise DataError(what, f"{type(error).__name__}: {error}") from None
    notes.drop(
        NOT_READ,
        [block.raw.split("\n")[0] if block.raw else "?" for block in library.failed_blocks],
    )
    fields = [
        {plain(field.key): str(field.value) for field in entry.fields} for entry in library.entries
    ]
    references = [_keys(each) for each in fields]
    if not any(references):
        hint = f"an entry names the keys of what it cites in a field {' or '.join(REFERENCES[:2])}"
        raise DataError(
            f"{file.path}: no entry cites another", f"{len(fields):,} entries", hint=hint
        )
    yield from papers_and_references(
        [entry.key for entry in library.entries],
        references,
        title=[_prose(each.get("title")) for each in fields],
        abstract=[_prose(each.get("abstract")) for each in fields],
        date=[date_text(each.get("date"), each.get("year")) for each in fields],
    )


def _keys(fields: dict[str, str]) -> list[str]:
    return [
        key
        for name in REFERENCES
        for key in KEYS.split(fields.get(name, ""))
        if key and key != "and"
    ]


def _prose(value: str | None) -> str | None:
    return None if value is None else " ".join(re.sub(r"[{}]", "", value).split())


IMPORTER = Importer(name="bibtex", title="BibTeX with references", sniff=sniff, read=read)
