"""Answers of `predict` as JSON, CSV, BibTeX, and text for a terminal."""

import csv
import io
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter

from citeflow.errors import DataError, error_to_dict
from citeflow.evaluation.answers import Answer, Prediction
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.reasons import Reason

CSV_COLUMNS = ("rank", "id", "title", "date", "probability", "logit", "reasons")

SPECIAL = re.compile(r"[\\{}$&#^_%~]")
"""Letters that TeX does not print as they are."""

ESCAPES = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}

WIDTH = 100


def to_json(answer: Answer) -> dict[str, JsonValue]:
    """Return plain values, without those that are unknown."""
    query = answer.query
    values: dict[str, JsonValue] = {}
    if query.id:
        values["id"] = query.id
    if query.paper:
        values["paper"] = query.paper
    if query.title:
        values["title"] = query.title
    if answer.error is not None:
        return {**values, "error": dict(error_to_dict(answer.error))}
    return {
        **values,
        "remarks": list(answer.remarks),
        "predictions": [_prediction(each) for each in answer.predictions],
    }


def from_json(values: Mapping[str, Any]) -> Answer:
    """Read what `to_json` returns of an answer that is no error.

    Raises:
        DataError: it is something else.
    """
    reason = {"papers": (), "num_papers": 0}
    prediction = {"title": None, "date": None, "is_cited": False}
    try:
        predictions = [
            {**prediction, **each, "reasons": [{**reason, **one} for one in each["reasons"]]}
            for each in values["predictions"]
        ]
        return Answer(
            query=QueryPaper(id=values.get("id", ""), paper=values.get("paper", "")),
            predictions=TypeAdapter(tuple[Prediction, ...]).validate_python(predictions),
            remarks=tuple(map(str, values["remarks"])),
        )
    except (KeyError, TypeError, ValueError):
        raise DataError("not an answer of citeflow", str(values)[:100]) from None


def _prediction(prediction: Prediction) -> dict[str, JsonValue]:
    values: dict[str, JsonValue] = {"rank": prediction.rank, "id": prediction.id}
    if prediction.title is not None:
        values["title"] = prediction.title
    if prediction.date is not None:
        values["date"] = prediction.date
    values |= {"probability": prediction.probability, "logit": prediction.logit}
    if prediction.is_cited:
        values["is_cited"] = True
    return {**values, "reasons": [_reason(each) for each in prediction.reasons]}


def _reason(reason: Reason) -> dict[str, JsonValue]:
    values: dict[str, JsonValue] = {"kind": reason.kind}
    if reason.papers:
        values |= {"papers": list(reason.papers), "num_papers": reason.num_papers}
    if reason.citing:
        values |= {"citing": list(reason.citing), "num_citing": reason.num_citing}
    return {**values, "value": reason.value, "text": reason.text}


def to_csv(answer: Answer) -> str:
    """Render a table with a header; the reasons of a row stand in one cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for each in answer.predictions:
        writer.writerow(
            (
                each.rank,
                each.id,
                each.title or "",
                each.date or "",
                f"{each.probability:.4f}",
                f"{each.logit:.4f}",
                "; ".join(reason.text for reason in each.reasons),
            )
        )
    return text.getvalue()


def to_bibtex(answer: Answer) -> str:
    """Render an entry for each prediction, for a reference manager."""
    return "\n".join(_entry(each) for each in answer.predictions)


def _entry(prediction: Prediction) -> str:
    reasons = "; ".join(reason.text for reason in prediction.reasons)
    fields = {
        "title": prediction.title or str(prediction.id),
        "year": (prediction.date or "")[:4],
        "date": prediction.date or "",
        "note": f"citeflow: rank {prediction.rank}, p = {prediction.probability:.2f}; {reasons}",
    }
    lines = [f"  {name} = {{{_tex(value)}}}," for name, value in fields.items() if value]
    key = re.sub(r"[\s,{}()=\"'#%~\\]+", "_", str(prediction.id))
    return "\n".join([f"@misc{{{key},", *lines, "}", ""])


def _tex(text: str) -> str:
    one_line = " ".join(text.split())
    return SPECIAL.sub(lambda match: ESCAPES.get(match[0], f"\\{match[0]}"), one_line)


def to_table(answer: Answer) -> str:
    """Render the predictions for a terminal, each with its reasons below."""
    lines = [f"note: {remark}" for remark in answer.remarks]
    if lines:
        lines.append("")
    id_width = max((len(str(each.id)) for each in answer.predictions), default=0)
    for each in answer.predictions:
        facts = [f"{each.rank:>4}", f"{each.probability:.2f}", str(each.id).ljust(id_width)]
        facts += [each.date] if each.date else []
        facts += [each.title] if each.title else []
        facts += ["(cited already)"] if each.is_cited else []
        lines.append("  ".join(facts))
        for reason in each.reasons:
            indent = " " * 12
            lines += textwrap.wrap(
                f"- {reason.text}", WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  "
            )
    return "\n".join([*lines, ""])
