"""The meaning of columns and fields by name, in the words of many programs; and their dates.

Names are compared without case and punctuation: `:START_ID`, `start_id` and `StartId` are one.
"""

import email.utils
import functools
import re
from collections.abc import Sequence
from datetime import date

CITING = (
    "citing", "source", "src", "from", "fromnode", "fromnodeid", "fromid", "citingid",
    "citingpaper", "citingpaperid", "citingcorpusid", "citingdoi",
    "sourceid", "sourcenode", "sourcepaper", "startid", "start", "node1",
    "id1", "u", "citer", "paper1", "doiciting", "citingpatent",
)  # fmt: skip
CITED = (
    "cited", "target", "dst", "dest", "to", "tonode", "tonodeid", "toid", "citedid", "citedpaper",
    "citedpaperid", "citedcorpusid", "citeddoi", "targetid", "targetnode", "targetpaper", "endid",
    "end", "node2", "id2", "v", "reference", "referenceid", "refid", "destination",
    "paper2", "citee", "doicited", "citedpatent", "paperreferenceid", "referencedworkid",
    "citedworkid", "referencedpaperid",
)  # fmt: skip
ID = (
    "id", "paperid", "nodeid", "node", "key", "idid", "corpusid", "workid", "articleid",
    "pmid", "doi",
    "arxivid", "eid", "uid", "vertex",
)  # fmt: skip
TITLE = ("title", "papertitle", "displayname", "label", "name")
ABSTRACT = ("abstract", "paperabstract", "abstracttext", "summary")
YEAR = ("year", "publicationyear", "pubyear", "yearpublished", "publishyear", "py", "yr")
DATE = (
    "date", "publicationdate", "pubdate", "datepublished", "publisheddate", "published", "created",
    "createddate", "submitteddate", "updatedate",
)  # fmt: skip
VAGUE = ("reference", "target", "to", "end", "v", "node2", "id2", "toid", "endid")
"""Names of a cited paper that say so only beside one of a citing paper."""

REFERENCES = (
    "references", "referencedworks", "outcitations", "outboundcitations", "cites", "citedworks",
    "refs", "reflist", "referenceids",
)  # fmt: skip

COUNT = re.compile(
    r"^(n|num|numberof)?(citations?|cited|citing|references?|refs)$|"
    r"(citations?|cited|citing|references?|citedby|refs?)(count|s?num|number)|"
    r"^(n|num|count|numberof|times|total)(of)?(citations?|cited|citing|references?)|"
    r"citations?per|citedbycount|degree|pagerank|betweenness|closeness|eccentricity|"
    r"eigencentrality|"
    r"^(authority|hub|clustering|triangles|componentnumber|modularityclass|hindex|fwci)$"
)
"""Names of figures that are counted from the citations, those included that are held out."""

ISO = re.compile(r"\s*(\d{4})(?:[-/](\d{1,2})(?:[-/](\d{1,2}))?)?(?:[T ].*)?\s*")


def plain(name: object) -> str:
    """Return a name in lower case, without punctuation."""
    return re.sub(r"[^a-z0-9]", "", str(name).lower())


def find(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """Return the name that stands first in a list of wanted ones, as it is spelled."""
    known = {plain(name): name for name in reversed(names)}
    return next((known[each] for each in wanted if each in known), None)


def ends(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of the citing and the cited paper, or None where there is no such pair.

    Beside a column such as `referenced_work_id`, an id is that of the citing paper.
    """
    citing, cited = find(names, CITING), find(names, CITED)
    if citing is None and cited is not None and plain(cited) not in VAGUE:
        citing = find(names, ID)
    return (citing, cited) if citing is not None and cited is not None and citing != cited else None


def is_count(name: str) -> bool:
    """True for a figure that is counted from the citations, which no feature may be."""
    return bool(COUNT.search(plain(name)))


def date_text(when: object, year: object = None) -> str | None:
    """Return a date as ISO text, or else the year, or None."""
    return _date(when) or _date(year)


def _date(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float):
        if not value.is_integer():
            return None
        value = int(value)
    if isinstance(value, int):
        return f"{value:04}" if 1 <= value <= 9999 else None
    return _date_of_text(str(value))


@functools.lru_cache(maxsize=1 << 16)
def _date_of_text(value: str) -> str | None:
    if match := ISO.fullmatch(value):
        year, month, day = match.groups()
        try:
            date(int(year), int(month or 1), int(day or 1))
        except ValueError:
            return None if year == "0000" else year
        return "-".join([year, *(part.zfill(2) for part in (month, day) if part)])
    if re.fullmatch(r"\s*\d{1,4}\.0+\s*", value):
        return _date(float(value))
    try:
        return email.utils.parsedate_to_datetime(value).date().isoformat()
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return None
