"""schemathesis finds no answer that the OpenAPI page does not describe."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from citeflow.serving.app import Limits, create_app
from citeflow.serving.metrics import ServerMetrics
from citeflow.serving.reload import IndexHolder, Source

EXAMPLES = 15
"""For each route; `schemathesis run URL/openapi.json` tries more, as docs/serving.md says."""

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


def describe():
    metrics = ServerMetrics()
    holder = IndexHolder(Source(find=lambda: None), metrics)  # is not started
    return create_app(holder, metrics, Limits()).openapi()


schema = schemathesis.openapi.from_dict(describe())


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_as_the_openapi_page_says(server, case):
    response = case.call(base_url=server.url, timeout=60)
    case.validate_response(response, checks=CHECKS)
