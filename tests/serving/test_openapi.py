"""schemathesis finds no answer that the OpenAPI page does not describe."""

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from citeflow.serving.app import task_app

EXAMPLES = 15
"""For each route; `schemathesis run URL/openapi.json` tries more, as docs/serving.md says."""

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


def describe(task):
    return schemathesis.openapi.from_dict(task_app(task).openapi())


schema, image_schema = describe("citation"), describe("images")


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


@image_schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_answers_about_pictures_are_as_the_openapi_page_says(image_server, case):
    response = case.call(base_url=image_server.url, timeout=60)
    case.validate_response(response, checks=CHECKS)
