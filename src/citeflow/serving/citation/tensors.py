"""The tensors of the Open Inference Protocol: papers in, three tensors out.

Legend: B papers of a request, k predictions of each.
"""

from collections.abc import Sequence
from http import HTTPStatus

import numpy as np
from pydantic import JsonValue

from citeflow.errors import DataError
from citeflow.evaluation.answers import Answer
from citeflow.evaluation.queries import QueryPaper
from citeflow.serving.citation.index import INPUTS, OUTPUTS
from citeflow.serving.citation.schema import MAX_QUERIES, InferRequest, Options, Tensor
from citeflow.serving.problems import ProblemError
from citeflow.utils import records

NO_LOGIT = float(np.finfo(np.float32).min)
"""Fills up the row of a paper that has fewer than k predictions, beside an empty id."""


def read_request(request: InferRequest) -> tuple[list[QueryPaper], Options]:
    """Return the papers that are asked for, and which papers are listed for them.

    Raises:
        DataError, ConfigError: an input is none of those that the model has, or does not fit.
    """
    options = records.load(Options, request.parameters, name="parameters")
    values = {tensor.name: _texts(tensor) for tensor in request.inputs}
    unknown = [name for name in values if name not in INPUTS]
    if unknown:
        raise DataError("unknown input", unknown[0][:40], hint=f"one of {', '.join(INPUTS)}")
    sizes = {len(texts) for texts in values.values()}
    if len(values) < len(request.inputs) or len(sizes) > 1:
        raise DataError("inputs must be given once each, and have one length", sorted(sizes))
    size = sizes.pop()
    if not 1 <= size <= MAX_QUERIES:
        raise DataError("papers of a request", size, hint=f"1 to {MAX_QUERIES}")
    return [_query({name: values[name][i] for name in values}) for i in range(size)], options


def _texts(tensor: Tensor) -> list[str]:
    """Return the elements of a tensor [B] or [B, 1].

    Raises:
        DataError: they are no text, or not as many as its shape says.
    """
    flat: list[object] = []
    for each in tensor.data:
        flat += each if isinstance(each, list) else [each]
    size = tensor.shape[0]
    if tensor.shape[1:] not in ([], [1]) or size != len(flat):
        hint = f"[{len(flat)}]"
        raise DataError(f"shape of input {tensor.name[:40]}", tensor.shape, hint=hint)
    texts = [each for each in flat if isinstance(each, str)]
    if len(texts) < len(flat):
        raise DataError("an element is no text in input", tensor.name[:40])
    return texts


def _query(values: dict[str, str]) -> QueryPaper:
    references = [each.strip() for each in values.pop("references", "").split(",")]
    known = {**values, "references": [each for each in references if each]}
    return records.load(QueryPaper, known, name="inputs", error=DataError)


def columns(answers: Sequence[Answer], k: int) -> dict[str, list[JsonValue]]:
    """Return the elements of the tensors [B, k] of some answers.

    Raises:
        ProblemError: a paper has no answer, as the protocol knows none for a part of the papers.
    """
    for number, answer in enumerate(answers):
        if answer.error is not None:
            problem = ProblemError.of(answer.error)
            raise ProblemError(
                HTTPStatus(problem.status), f"paper {number}: {problem.detail}", hint=problem.hint
            )
    rows = [
        [(str(each.id), each.probability, each.logit) for each in answer.predictions]
        for answer in answers
    ]
    filled = [[*row, *[("", 0.0, NO_LOGIT)] * (k - len(row))] for row in rows]
    return {
        name: [each[column] for row in filled for each in row]
        for column, name in enumerate(OUTPUTS)
    }
