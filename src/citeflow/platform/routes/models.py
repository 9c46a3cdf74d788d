"""Models of a user: versions, aliases, deployment; and questions to them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from citeflow.platform.schema import (
    AliasRequest,
    CitationsBody,
    CitationsRequest,
    DeploymentRequest,
    ModelBody,
    ModelList,
    PaperList,
)
from citeflow.platform.services import Shared, User
from citeflow.serving.handlers import LimitedRoute

router = APIRouter(route_class=LimitedRoute, tags=["models"])


@router.get("/models")
def list_models(account: User, shared: Shared) -> ModelList:
    """List the models with their versions."""
    return ModelList(models=shared.models.list(account, shared.seconds))


@router.put("/models/{model}/aliases/{alias}")
def set_alias(
    model: str, alias: str, body: AliasRequest, account: User, shared: Shared
) -> ModelBody:
    """Let an alias name a version; `champion` moves to a better one only, unless forced."""
    shared.models.set_alias(account, model, alias, body.version, force=body.force)
    shared.accounts.note(account.name, "promote", f"{model} {body.version}", alias)
    return shared.models.get(account, model, shared.seconds)


@router.put("/models/{model}/deployment")
def deploy_model(model: str, body: DeploymentRequest, account: User, shared: Shared) -> ModelBody:
    """Let a version answer."""
    shared.models.deploy(account, model, body.version)
    shared.accounts.note(account.name, "deploy", f"{model} {body.version}", "started")
    return shared.models.get(account, model, shared.seconds)


@router.delete("/models/{model}/deployment", status_code=HTTPStatus.NO_CONTENT)
def undeploy_model(model: str, account: User, shared: Shared) -> None:
    """Let no version answer."""
    shared.models.undeploy(account, model)
    shared.accounts.note(account.name, "undeploy", model, "done")


@router.get("/try/{model}/papers")
async def find_papers(
    model: str, account: User, shared: Shared, words: Annotated[str, Query(max_length=1_000)] = ""
) -> PaperList:
    """Find papers of the graph by id or by words of the title, or some to begin with."""
    return await shared.trying.papers(account, model, words)


@router.post("/try/{model}/citations")
async def ask_citations(
    model: str, body: CitationsRequest, account: User, shared: Shared
) -> CitationsBody:
    """List what a paper should cite, and does not."""
    return await shared.trying.citations(account, model, body)
