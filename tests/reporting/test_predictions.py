"""Answers as JSON, CSV, BibTeX and text."""

import csv
import io
import json

import bibtexparser
import pytest

from citeflow.errors import NotFoundError
from citeflow.evaluation.answers import Answer, Prediction
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.reasons import Reason
from citeflow.reporting.predictions import to_bibtex, to_csv, to_json, to_table

PATH = Reason(
    kind="co_citation",
    papers=(7,),
    num_papers=1,
    citing=(8, 9),
    num_citing=12,
    value=0.5,
    text='cited together with "A, B" (7), which you cite, by 8, 9 and 10 more',
)
ALIKE = Reason(kind="similar_text", papers=(), num_papers=0, value=0.8, text="similar text 0.80")


def prediction(rank, name, **values):
    usual = {"title": None, "date": None, "logit": 1.5, "probability": 0.81, "is_cited": False}
    return Prediction(rank=rank, id=name, reasons=(PATH, ALIKE), **(usual | values))


@pytest.fixture
def answer():
    return Answer(
        query=QueryPaper(id="mine", title="On strings"),
        predictions=(
            prediction(1, "hep-th/9711200", title="100% of $N$ {large}\\_~", date="1997-11-27"),
            prediction(2, "10.1016/0550, (3)", is_cited=True),
        ),
        remarks=("no references: less certain",),
    )


def test_json_has_what_is_known(answer):
    values = json.loads(json.dumps(to_json(answer)))
    assert list(values) == ["id", "title", "remarks", "predictions"]
    first, second = values["predictions"]
    assert list(first) == ["rank", "id", "title", "date", "probability", "logit", "reasons"]
    assert list(second) == ["rank", "id", "probability", "logit", "is_cited", "reasons"]
    path, alike = first["reasons"]
    assert (path["papers"], path["citing"], path["num_citing"]) == ([7], [8, 9], 12)
    assert list(alike) == ["kind", "value", "text"]
    error = NotFoundError("no paper with this id", 7, hint="8")
    values = to_json(Answer(query=QueryPaper(paper="7"), error=error))
    assert values["paper"] == "7"
    assert (values["error"]["value"], values["error"]["exit_code"]) == ("7", 66)


def test_csv_is_read_back(answer):
    first, second = csv.DictReader(io.StringIO(to_csv(answer)))
    assert (first["rank"], first["id"], first["date"]) == ("1", "hep-th/9711200", "1997-11-27")
    assert first["title"] == answer.predictions[0].title
    assert first["reasons"] == f"{PATH.text}; {ALIKE.text}"
    assert (second["id"], second["title"]) == ("10.1016/0550, (3)", "")


def test_bibtex_is_read_back(answer):
    library = bibtexparser.parse_string(to_bibtex(answer))
    assert not library.failed_blocks
    first, second = library.entries
    assert first["title"] == r"100\% of \$N\$ \{large\}\textbackslash{}\_\textasciitilde{}"
    assert (first["year"], first["date"]) == ("1997", "1997-11-27")
    assert second.key == "10.1016/0550_3_"
    assert "rank 2, p = 0.81" in second["note"]


def test_table_has_remarks_and_reasons(answer):
    lines = to_table(answer).splitlines()
    assert lines[0] == "note: no references: less certain"
    assert lines[2].startswith("   1  0.81  hep-th/9711200     1997-11-27  100% of")
    assert lines[3].strip() == f"- {PATH.text}"
    assert lines[5].endswith("(cited already)")
    assert max(map(len, lines)) <= 100
