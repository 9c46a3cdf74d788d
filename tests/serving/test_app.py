"""Each route, over HTTP."""

import io
import json
import socket

import jsonschema
import pytest
from serving.conftest import running, wait_until

from citeflow.evaluation.answers import Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.reporting.predictions import to_json
from citeflow.serving.listening import Address


def expected(index, query, **wanted):
    answer = index.engine.answer(query, Wanted(**{"exact": False, **wanted}))
    return json.loads(
        json.dumps(
            {**to_json(answer), "method": answer.method, "num_candidates": answer.num_candidates}
        )
    )


def test_a_paper_of_the_graph_gets_the_answer_of_the_engine(server, index):
    route = "/v1/papers/p300/citations"
    assert server.post(route).json() == expected(index, QueryPaper(paper="p300"))
    options = {"k": 3, "since": "1990", "exclude_cited": False, "exact": True}
    found = server.post(route, options).json()
    assert found == expected(index, QueryPaper(paper="p300"), **options)
    assert (len(found["predictions"]), found["method"]) == (3, "exact")


def test_a_new_paper_gets_the_answer_of_the_engine(server, index):
    body = {"references": ["p3", "p4"], "papers": ["p5", "p6"], "date": "2030", "k": 4, "id": "me"}
    query = QueryPaper(id="me", references=("p5", "p6", "p3", "p4"), date="2030")
    found = server.post("/v1/citations", body).json()
    assert found == expected(index, query, k=4)
    assert found["id"] == "me"


def test_a_batch_has_an_answer_or_an_error_for_each(server, index):
    queries = [{"paper": "p300"}, {"paper": "nobody"}, {"references": ["p3"]}, {}]
    answers = server.post("/v1/citations:batch", {"queries": queries, "k": 2}).json()["answers"]
    assert answers[0] == expected(index, QueryPaper(paper="p300"), k=2)
    assert answers[2] == expected(index, QueryPaper(references=("p3",)), k=2)
    assert [answers[i]["error"]["status"] for i in (1, 3)] == [404, 422]
    assert answers[1]["paper"] == "nobody"


def test_papers_are_found_and_shown(server, index):
    found = server.get("/v1/papers", params={"q": "on p30", "limit": 3}).json()["papers"]
    assert [each["title"].startswith("On p30") for each in found] == [True] * 3
    row = index.papers.find("p300")
    shown = server.get("/v1/papers/p300").json()
    references = index.graph.references.row(row).tolist()
    assert shown == {
        "id": "p300",
        "title": "On p300",
        "date": index.engine.date(row),
        "cited_by": len(index.graph.citations.row(row)),
        "num_references": len(references),
        "references": [
            {"id": index.papers.ids[each], "title": index.papers.titles[each]}
            for each in references
        ],
    }


def test_about_says_what_answers(server, index):
    about = server.get("/v1/about").json()
    assert about["version"] == index.manifest.sha256
    assert (about["num_papers"], about["has_titles"], about["has_text"]) == (400, True, False)


def test_an_identifier_may_have_a_slash(server):
    for name in ("10.1%2Fx", "10.1/x"):
        problem = server.post(f"/v1/papers/{name}/citations").json()
        assert problem["detail"] == "no paper with this id: 10.1/x"
        assert server.get(f"/v1/papers/{name}").status_code == 404


def test_the_open_inference_protocol_answers_in_tensors(server, index):
    assert server.get("/v2").json()["name"] == "citeflow"
    model = server.get("/v2/models/citeflow").json()
    assert [each["name"] for each in model["outputs"]] == ["id", "probability", "logit"]
    assert server.get("/v2/models/citeflow/ready").json() == {"name": "citeflow", "ready": True}
    tensor = {"name": "paper", "shape": [2, 1], "datatype": "BYTES", "data": [["p300"], ["p301"]]}
    body = {"id": "7", "inputs": [tensor], "parameters": {"k": 3}}
    found = server.post("/v2/models/citeflow/infer", body).json()
    assert (found["id"], found["model_version"]) == ("7", model["versions"][0])
    outputs = {each["name"]: each for each in found["outputs"]}
    answers = [expected(index, QueryPaper(paper=name), k=3) for name in ("p300", "p301")]
    for name, datatype in (("id", "BYTES"), ("probability", "FP32"), ("logit", "FP32")):
        assert (outputs[name]["shape"], outputs[name]["datatype"]) == ([2, 3], datatype)
        values = [each[name] for answer in answers for each in answer["predictions"]]
        assert outputs[name]["data"] == values


def test_tensors_of_new_papers_are_filled_up_where_there_are_few_predictions(server):
    inputs = [
        {"name": "references", "shape": [1], "datatype": "BYTES", "data": ["p3, p4"]},
        {"name": "title", "shape": [1], "datatype": "BYTES", "data": ["On strings"]},
    ]
    body = {"inputs": inputs, "parameters": {"k": 500, "exact": True}}
    ids = server.post("/v2/models/citeflow/infer", body).json()["outputs"][0]["data"]
    assert len(ids) == 500
    assert (ids[0] != "", ids[-1]) == (True, "")


def test_a_request_keeps_its_id_and_has_a_line_in_the_log(server, monkeypatch):
    # not capfd: what is written while that is read is lost
    log = io.StringIO()
    monkeypatch.setattr("sys.stdout", log)
    response = server.get("/v1/papers/p300", headers={"X-Request-ID": "mine-1"})
    assert response.headers["X-Request-ID"] == "mine-1"
    made = server.get("/v1/papers/nobody", headers={"X-Request-ID": "no good\tid"})
    assert made.json()["request_id"] == made.headers["X-Request-ID"] != "no good\tid"
    ids = {"mine-1", made.headers["X-Request-ID"]}

    def lines():  # those of other requests may be among them
        found = [json.loads(line) for line in log.getvalue().splitlines()]
        return [each for each in found if each["request_id"] in ids]

    wait_until(lambda: len(lines()) == 2)  # a line is written behind its answer
    assert [(each["request_id"], each["status"], each["route"]) for each in lines()] == [
        ("mine-1", 200, "/v1/papers/{paper:path}"),
        (made.headers["X-Request-ID"], 404, "/v1/papers/{paper:path}"),
    ]


def test_metrics_count_requests_by_route(server):
    server.post("/v1/papers/p300/citations")
    page = server.get("/metrics").text
    assert 'status="200"' in page
    assert 'citeflow_serving_size{of="papers"} 400.0' in page
    assert 'citeflow_serving_answers_total{method="walk"}' in page


def test_answers_fit_the_openapi_page(server):
    page = server.get("/openapi.json").json()
    assert page["openapi"].startswith("3.1")
    new = {"references": ["p3", "p4"]}
    requests = [
        ("get", "/v1/about", "/v1/about", None),
        ("get", "/v1/papers", "/v1/papers?q=p300", None),
        ("get", "/v1/papers/{paper}", "/v1/papers/p300", None),
        ("post", "/v1/papers/{paper}/citations", "/v1/papers/p300/citations", {"k": 20}),
        ("post", "/v1/citations", "/v1/citations", new),
        ("post", "/v1/citations:batch", "/v1/citations:batch", {"queries": [new, {}]}),
    ]
    for method, route, path, body in requests:
        response = server.get(path) if method == "get" else server.post(path, body)
        schema = page["paths"][route][method]["responses"]["200"]["content"]["application/json"]
        jsonschema.validate(response.json(), {**schema["schema"], "components": page["components"]})
    assert page["paths"]["/v1/citations"]["post"]["responses"]["default"]


def test_the_listener_names_its_protocol_so_that_answers_are_sent_at_once():
    with Address(port=0).bind() as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_no_answer_before_the_index_is_open(tmp_path):
    with running(tmp_path / "later", watch_s=0.05, wait=False) as server:
        assert server.get("/v2/health/live").json() == {"live": True}
        for path in ("/v2/health/ready", "/v2/models/citeflow/ready", "/v1/about"):
            assert server.get(path).status_code == 503
        assert server.post("/v1/papers/p3/citations").json()["status"] == 503
        assert server.get("/openapi.json").status_code == 503


@pytest.mark.parametrize("served", ["server", "image_server"])
def test_the_page_is_served_with_a_strict_policy(served, request):
    server = request.getfixturevalue(served)
    page = server.get("/")
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.headers["Content-Type"].startswith("text/html")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'")
    for name, kind in (("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        assert server.get(f"/{name}").headers["Content-Type"].startswith(kind)
    assert server.get("/shared.js").status_code == server.get("/page.css").status_code == 200
    for path in ("/..%2fapp.py", "/%2e%2e/app.py", "/nothing.js"):
        assert server.get(path).status_code == 404
