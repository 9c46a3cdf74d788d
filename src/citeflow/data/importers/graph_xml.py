"""GraphML and GEXF, read by networkx.

networkx holds the whole graph, about 1 kB for each node and edge; for graphs of many millions an
edge list is the better export. Attributes of a node by the names of a title, an abstract, a year or
a date are those; other numbers are features, unless they count citations.
"""

import io
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

import pyarrow as pa

from citeflow.data.diagnosis import first_line
from citeflow.data.importers import base
from citeflow.data.importers.base import CERTAIN, Evidence, Importer, Notes, Stream
from citeflow.data.importers.columns import find, is_count
from citeflow.data.importers.node_edge_tables import ROLES, papers_of_columns
from citeflow.data.importers.source import Source, SourceFile
from citeflow.errors import DataError

BATCH_ROWS = 1 << 16
DECLARED = re.compile(rb"""^(\s*<\?xml[^>]*encoding=["'])[^"']*(["'])""")
ROOT = re.compile(rb"<(?:\w+:)?(graphml|gexf)[\s>]")


def _kind(file: SourceFile) -> str:
    head = file.head[:4096]
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return ""
    match = ROOT.search(head)
    return match[1].decode() if match else ""


def sniff(source: Source) -> Evidence | None:
    """Recognize the element on top."""
    if not (found := source.where(_kind)):
        return None
    return Evidence(CERTAIN, f"{found[0].path.name} has <{_kind(found[0])}>")


def read(source: Source, notes: Notes) -> Stream:
    """Read the nodes and edges of every file."""
    for file in source.where(_kind):
        graph = _load(file)
        if not graph.is_directed():
            notes.remark("the edges have no direction; they are read from source to target")
        yield from papers_of_nodes(graph, notes)
        for edges in _batched(graph.edges()):
            yield base.citations([str(edge[0]) for edge in edges], [str(edge[1]) for edge in edges])


def _batched(values: Any) -> Iterator[tuple[Any, ...]]:
    iterator = iter(values)
    while batch := tuple(itertools.islice(iterator, BATCH_ROWS)):
        yield batch


def _load(file: SourceFile) -> Any:
    networkx = base.library("networkx")
    readers: dict[str, Callable[..., Any]] = {
        "graphml": networkx.read_graphml,
        "gexf": networkx.read_gexf,
    }
    content = file.read_whole()
    if file.encoding:  # it still says what it was in
        content = DECLARED.sub(rb"\1utf-8\2", content, count=1)
    try:
        return readers[_kind(file)](io.BytesIO(content))
    except ParseError as error:
        hint = "the file may be cut short" if "no element found" in str(error) else ""
        raise DataError(f"{file.path}: not XML", first_line(error), hint=hint) from None
    except Exception as error:  # of networkx, which raises whatever its code runs into
        what = f"{file.path}: not a {_kind(file)} file that networkx reads"
        raise DataError(what, f"{type(error).__name__}: {first_line(error)}") from None


def papers_of_nodes(graph: Any, notes: Notes) -> Iterator[base.Papers]:
    """Yield the nodes of a graph of networkx as papers."""
    names = list(dict.fromkeys(name for _, values in graph.nodes(data=True) for name in values))
    roles = {role: find(names, words) for role, words in ROLES.items() if role != "id"}
    taken = {name: role for role, name in roles.items() if name is not None}
    plain = [
        name
        for name in names
        if name not in taken and not isinstance(_first(graph, name), dict | list)
    ]
    for name in names:
        if name not in taken and is_count(name):
            notes.ignore(name, "counted from the citations")
    kept = [name for name in plain if not is_count(name) and name not in {"id", *taken.values()}]
    for nodes in _batched(graph.nodes(data=True)):
        columns: dict[str, pa.Array] = {"id": base.text([str(node) for node, _ in nodes])}
        for name, role in taken.items():
            columns[role] = base.text([_text(values.get(name)) for _, values in nodes])
        for name in kept:
            columns[str(name)] = base.text([_text(values.get(name)) for _, values in nodes])
        yield papers_of_columns(columns)


def _first(graph: Any, name: str) -> object:
    return next(values[name] for _, values in graph.nodes(data=True) if name in values)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


IMPORTER = Importer(name="graphml", title="GraphML and GEXF", sniff=sniff, read=read)
