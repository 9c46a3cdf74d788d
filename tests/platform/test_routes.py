"""Every route, asked by everybody: nobody sees or changes what is another's."""

import pytest

UPLOAD = "a" * 32

TABLE = {
    # route: (anonymous, another user, the user, an admin, body, query)
    "GET /setup": (200, 200, 200, 200),
    "POST /setup": (403, 403, 403, 403, {"token": "x", "name": "eve", "password": "0123456789"}),
    "POST /session": (401, 401, 401, 401, {"name": "ann", "password": "wrong"}),
    "POST /oidc/login": (404, 404, 404, 404, {}),  # there is no provider
    "POST /oidc/session": (404, 404, 404, 404, {"code": "x", "state": "x"}),
    "GET /me": (401, 200, 200, 200),
    "POST /password": (401, 403, 403, 403, {"old": "wrong", "new": "0123456789"}),
    "GET /sizes": (401, 200, 200, 200),
    "GET /environment": (401, 200, 200, 404),
    "PUT /environment": (401, 200, 200, 200, {"size": "L"}),
    "GET /form/{task}": (401, 200, 200, 200),
    "POST /runs/preview": (401, 200, 200, 200, {"dataset": "synthetic"}),
    "POST /runs": (401, 201, 201, 201, {"dataset": "synthetic"}),
    "GET /runs": (401, 200, 200, 200),
    "GET /runs/compare": (401, 404, 200, 404, None, "?ids={run_id}"),
    "GET /runs/{run_id}": (401, 404, 200, 404),
    "POST /runs/{run_id}/cancel": (401, 404, 409, 404),
    "POST /runs/{run_id}/resume": (401, 404, 409, 404),
    "GET /runs/{run_id}/events": (401, 404, 200, 404),
    "GET /runs/{run_id}/logs": (401, 404, 200, 404),
    "GET /runs/{run_id}/report.html": (401, 404, 200, 404),
    "GET /runs/{run_id}/files/{name:path}": (401, 404, 200, 404),
    "POST /uploads": (401, 422, 422, 422, None, "?name=.hidden"),
    "GET /uploads": (401, 200, 200, 200),
    "GET /models": (401, 200, 200, 200),
    "PUT /models/{model}/aliases/{alias}": (401, 404, 200, 404, {"version": 1}),
    "GET /try/{model}/papers": (401, 404, 200, 404, None, "?words=on"),
    "POST /try/{model}/citations": (401, 404, 200, 404, {"paper": "p300"}),
    "PUT /models/{model}/deployment": (401, 404, 200, 404, {"version": 1}),
    "GET /users": (401, 403, 403, 200),
    "POST /users": (401, 403, 403, 201, {"name": "eve"}),
    "GET /audit": (401, 403, 403, 200),
    "PATCH /users/{name}": (401, 403, 403, 200, {"size": "L"}),
    "DELETE /models/{model}/deployment": (401, 404, 204, 404),
    "DELETE /uploads/{upload_id}": (401, 404, 204, 404),
    "DELETE /runs/{run_id}": (401, 404, 409, 404),  # its model is the champion
    "DELETE /environment": (401, 409, 409, 409),  # runs are in it
    "DELETE /users/{name}": (401, 403, 403, 204),
    "DELETE /session": (204, 204, 204, 204),
}
COLUMNS = ("", "bob", "ann", "root")


PREFIX = "/api/v1"
METHODS = {"get", "post", "put", "patch", "delete"}
OUTSIDE = {"GET /health", "GET /metrics", "GET /{path}", "GET /api/v1/openapi.json"}
"""Routes that the document leaves out: they know nothing of users."""


def described(app):
    """Return all routes of the OpenAPI document."""
    paths = app.openapi()["paths"]
    return {f"{method.upper()} {path}" for path in paths for method in METHODS & {*paths[path]}}


def served(app):
    """Return all routes that are served, those of included routers too."""
    found = [(route.path, route.methods) for route in app.routes if hasattr(route, "methods")]
    for each in app.routes:
        if hasattr(each, "original_router"):
            routes = each.original_router.routes
            found += [(f"{PREFIX}{route.path}", route.methods) for route in routes]
    return {f"{method} {as_described(path)}" for path, methods in found for method in methods}


def as_described(path):
    return path.replace(":path}", "}")


def test_each_route_of_the_document_has_a_row(platform):
    """Prints the table, too: `pytest -s`."""
    rows = [route.split() for route in TABLE]
    found = described(platform.app)
    assert {f"{method} {PREFIX}{as_described(path)}" for method, path in rows} == found
    print(f"\n{'route':40} nobody other  own admin")
    for route, row in TABLE.items():
        print(f"{route:40} {row[0]:6} {row[1]:5} {row[2]:4} {row[3]:5}")


def test_no_route_is_left_out_of_the_document(platform):
    left_out = served(platform.app) - described(platform.app)
    assert {route for route in left_out if not route.startswith("HEAD ")} == OUTSIDE


@pytest.mark.parametrize("column", range(4), ids=["anonymous", "other", "user", "admin"])
def test_route_answers_everybody_as_the_table_says(platform, succeed, column):
    run = platform.submit("ann", name="first")
    succeed(platform, run)
    add_upload(platform)
    names = {
        "run_id": run["id"],
        "task": "citation",
        "name:path": "report.html",
        "model": "synthetic",
        "alias": "champion",
        "upload_id": UPLOAD,
        "name": "ann",
    }
    client = platform.client(COLUMNS[column])
    answered = {}
    for route, row in TABLE.items():
        body, query = ([*row[4:], None, None])[:2]
        method, path = route.split()
        for name, value in names.items():
            path = path.replace("{" + name + "}", value)
        query = (query or "").replace("{run_id}", run["id"])
        answer = client.request(method, f"/api/v1{path}{query}", json=body)
        answered[route] = answer.status_code
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"]
    assert answered == {route: row[column] for route, row in TABLE.items()}


def test_admin_sees_how_much_and_not_what(platform, succeed):
    run = platform.submit("ann", name="secret-name")
    succeed(platform, run)
    admin = platform.client("root")
    listed = admin.get("/api/v1/users").json()["users"]
    assert [(user["name"], user["runs"]) for user in listed] == [
        ("ann", 1),
        ("bob", 0),
        ("root", 0),
    ]
    assert "secret-name" not in admin.get("/api/v1/users").text
    assert admin.get("/api/v1/runs").json() == {"runs": []}
    assert admin.get("/api/v1/models").json() == {"models": []}


def add_upload(platform):
    from sqlalchemy import insert

    from citeflow.platform import store

    verdict = {"format": "x", "summary": "", "warnings": [], "papers": 1, "citations": 1}
    values = {"id": UPLOAD, "user": "ann", "name": "a.csv", "kind": "dataset", "bytes": 1}
    with platform.services.store.write() as connection:
        statement = insert(store.uploads).values(**values, created=1.0, verdict=verdict)
        connection.execute(statement)
