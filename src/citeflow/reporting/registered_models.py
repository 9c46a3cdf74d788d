"""The versions of a model in MLflow's registry, and the aliases by which others ask for them.

`publish` adds a version for each model, once, and points `candidate` at it. `champion`, which
servers follow, moves to a model that is better by a protocol, and back. MLflow's own stages
(Staging, Production) are deprecated there; aliases have taken their place.
"""

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from citeflow import files
from citeflow.errors import ConfigError, CorruptError, DataError, NotFoundError
from citeflow.reporting import mlflow_client
from citeflow.utils.logging import log

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME_VARIABLE = "CITEFLOW_MODEL_NAME"
"""Variable with the name of the registered model, where it is not `citeflow`."""

CANDIDATE = "candidate"
CHAMPION = "champion"
HISTORY = "citeflow.champions"
"""Tag of the registered model: the versions that were champion, the first one first."""

SCORE = "score."
"""Prefix of the tags with the test score of each protocol."""

DATA = "citeflow.data"
METRIC = "citeflow.metric"
DECISIVE = "citeflow.decisive"
"""Tags with the digest of the prepared data, the label of the score, and the protocol that decides
which version is better unless another is named."""

CREATED_WITHIN_S = 60
URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def default_name() -> str:
    """Return the name of the registered model that published models become versions of."""
    return os.environ.get(NAME_VARIABLE) or "citeflow"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """Scores on the test by which models are compared."""

    metric: str
    """Label of the score, such as MRR."""

    by_protocol: dict[str, float]
    """One for each way of testing."""

    decisive: str
    """The protocol that decides unless another is named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A version of a registered model."""

    name: str
    number: int
    aliases: tuple[str, ...]
    run: str
    """Name of the run that trained it."""

    dataset: str
    sha256: str
    """Of the TrainedModel."""

    data: str
    """sha256 of the prepared data that it was trained and measured on."""

    metric: str
    """Label of the scores, such as MRR."""

    scores: dict[str, float]
    """Test scores by protocol."""

    decisive: str
    """The protocol whose score decides unless another is named."""

    created: str
    """UTC, as ISO text."""


class Reference(NamedTuple):
    """A version, by number or alias."""

    name: str
    version: str

    @classmethod
    def parse(cls, uri: str) -> "Reference":
        """Read `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

        Raises:
            ConfigError: it is neither.
        """
        if not (match := URI.fullmatch(uri)):
            hint = "such as models:/citeflow@champion or models:/citeflow/3"
            raise ConfigError("not a registered model", uri, hint=hint)
        return cls(match["name"], match["alias"] or match["version"])


def register(
    client: "MlflowClient", scores: Scores, *, model_id: str, tags: Mapping[str, str]
) -> None:
    """Add a version for a logged model; one of the same weights is told the newest figures.

    Args:
        client: of the server.
        scores: those of the report on it.
        model_id: that of the LoggedModel.
        tags: digests of its artifacts, TrainedModel among them, its run, dataset and DATA.
    """
    name = default_name()
    sha256 = tags["TrainedModel"]
    tags = {
        **tags,
        METRIC: scores.metric,
        DECISIVE: scores.decisive,
        **{f"{SCORE}{protocol}": repr(each) for protocol, each in scores.by_protocol.items()},
    }
    if _create_model(client, name) and (found := _of_weights(client, name, sha256)):
        for key in [key for key, value in tags.items() if found[0].tags.get(key) != value]:
            client.set_model_version_tag(name, found[0].version, key, tags[key])
        return
    created = client.create_model_version(
        name,
        source=f"models:/{model_id}",
        tags=dict(tags),
        model_id=model_id,
        await_creation_for=CREATED_WITHIN_S,
    )
    # Two may have looked before either had created its own: the first one counts.
    first, *twins = _of_weights(client, name, sha256) or [created]
    for twin in twins:
        client.delete_model_version(name, twin.version)
    client.set_registered_model_alias(name, CANDIDATE, first.version)
    log("publish", "registered", model=f"models:/{name}/{first.version}", alias=CANDIDATE)


def _create_model(client: "MlflowClient", name: str) -> bool:
    """Create the registered model; return True if it was there."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name, description="Models of citeflow")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return True
    return False


def _of_weights(client: "MlflowClient", name: str, sha256: str) -> "list[ModelVersion]":
    found = client.search_model_versions(f"name = '{name}' AND tags.TrainedModel = '{sha256}'")
    return sorted(found, key=lambda version: int(version.version))


@contextmanager
def _registry(failed: str) -> Iterator["MlflowClient"]:
    address = mlflow_client.uri()
    with mlflow_client.connected(address, failed=f"MLflow did not {failed}") as client:
        yield client


def versions(name: str) -> list[Version]:
    """Return all versions of a registered model, the newest first; one of others is left out.

    Raises:
        NotFoundError: there is no such model.
        UnavailableError: MLflow does not answer.
    """
    with _registry("list the models") as client:
        aliases = _aliases(client, name)
        found = []
        for each in client.search_model_versions(f"name = '{name}'"):
            try:
                found.append(_read(each, aliases))
            except CorruptError as error:
                log("models", "left out", version=each.version, because=error.what)
    return sorted(found, key=lambda version: -version.number)


def find(name: str, version: str) -> Version:
    """Return a version by number or alias.

    Raises:
        NotFoundError: there is none.
        UnavailableError: MLflow does not answer.
    """
    with _registry("find the model") as client:
        return _find(client, name, version)


def _find(client: "MlflowClient", name: str, version: str) -> Version:
    from mlflow.exceptions import MlflowException

    aliases = _aliases(client, name)
    number = version if version.isdigit() else aliases.get(version, "")
    try:
        return _read(client.get_model_version(name, number or "0"), aliases)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = ", ".join([*aliases, "a number"])
        raise NotFoundError(
            f"{name} has no such version", version, hint=f"it has {known}"
        ) from None


def _aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    """Return the number of the version behind each alias."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(of) for alias, of in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        hint = f"publish a run with {mlflow_client.URI_VARIABLE} set"
        raise NotFoundError("no such registered model", name, hint=hint) from None


def _read(found: "ModelVersion", aliases: dict[str, str]) -> Version:
    tags = found.tags
    try:
        return Version(
            name=found.name,
            number=int(found.version),
            aliases=tuple(alias for alias, of in aliases.items() if of == str(found.version)),
            run=tags["citeflow.run"],
            dataset=tags["dataset"],
            sha256=tags["TrainedModel"],
            data=tags[DATA],
            metric=tags[METRIC],
            decisive=tags[DECISIVE],
            scores={
                key.removeprefix(SCORE): float(value)
                for key, value in tags.items()
                if key.startswith(SCORE)
            },
            created=time.strftime("%FT%TZ", time.gmtime(found.creation_timestamp / 1000)),
        )
    except (KeyError, ValueError) as error:
        what = f"models:/{found.name}/{found.version} lacks a tag of citeflow's, or it is wrong"
        raise CorruptError(what, error, hint="publish its run again") from None


def download(version: Version, models: Path) -> Path:
    """Download a version, unless it is there, and verify it by the digest that was registered.

    Args:
        version: as the registry has it.
        models: folder of downloaded models.

    Returns:
        The TrainedModel.

    Raises:
        CorruptError: it is another model than the one that was registered.
        UnavailableError: MLflow does not answer.
    """
    folder = models / version.sha256[:16] / "model"
    if (folder / files.MANIFEST).is_file():
        _verify(folder, version)
        return folder
    with _registry("hand out the model") as client, files.new_directory(folder) as work:
        from mlflow.artifacts import download_artifacts

        source = client.get_model_version(version.name, str(version.number)).source
        download_artifacts(artifact_uri=source, dst_path=str(work))
        _verify(work, version)
    return folder


def _verify(folder: Path, version: Version) -> None:
    if files.verify(folder, "TrainedModel").sha256 != version.sha256:
        what = f"models:/{version.name}/{version.number} is not the model that was registered"
        raise CorruptError(what, folder, hint="publish its run again")


def promote(name: str, version: str, *, protocol: str, models: Path, force: bool) -> Version:
    """Make a version the champion if it is better than the one that is.

    Args:
        name: the registered model.
        version: number or alias of the version.
        protocol: whose test score decides; empty takes the one that the version names.
        models: folder of downloaded models; its files are verified there first.
        force: do not ask which is better.

    Raises:
        DataError: it is no better, or cannot be compared.
        CorruptError: its files are damaged.
    """
    with _registry("promote the model") as client:
        wanted = _find(client, name, version)
        if CHAMPION in wanted.aliases:
            return wanted
        current = _champion(client, name)
        if not force:
            check_better(wanted, current, protocol)
        download(wanted, models)
        if current is not None:
            past = client.get_registered_model(name).tags.get(HISTORY, "").split()
            client.set_registered_model_tag(name, HISTORY, " ".join([*past, str(current.number)]))
        client.set_registered_model_alias(name, CHAMPION, str(wanted.number))
        return _find(client, name, CHAMPION)


def rollback(name: str) -> Version:
    """Make the version the champion that was it before.

    Raises:
        NotFoundError: there was none.
    """
    with _registry("roll the model back") as client:
        _aliases(client, name)
        past = client.get_registered_model(name).tags.get(HISTORY, "").split()
        if not past:
            raise NotFoundError("no earlier champion", name, hint="`citeflow models list`")
        _find(client, name, past[-1])  # it may have been deleted
        client.set_registered_model_alias(name, CHAMPION, past[-1])
        client.set_registered_model_tag(name, HISTORY, " ".join(past[:-1]))
        return _find(client, name, CHAMPION)


def _champion(client: "MlflowClient", name: str) -> Version | None:
    return _find(client, name, CHAMPION) if CHAMPION in _aliases(client, name) else None


def check_better(wanted: Version, current: Version | None, protocol: str) -> None:
    """Check that a version may follow the champion.

    Args:
        wanted: the version.
        current: the champion, if there is one.
        protocol: whose test score decides; empty takes the one that the version names.

    Raises:
        DataError: it has no such score, it was measured on other data, or it is no better.
    """
    protocol = protocol or wanted.decisive
    score = wanted.scores.get(protocol, math.nan)
    this = f"models:/{wanted.name}/{wanted.number}"
    if not math.isfinite(score):
        known = ", ".join(wanted.scores)
        raise DataError(f"{this} has no score by", protocol, hint=f"it has {known}")
    if current is None:
        return
    if wanted.data != current.data:
        what = f"{this} was measured on other data than the champion"
        raise DataError(what, f"{wanted.dataset}, {current.dataset}", hint="--force promotes it")
    best = current.scores.get(protocol, math.nan)
    if not score > best:
        what = f"{this} is no better than the champion, version {current.number}"
        value = f"{protocol} {wanted.metric} {score:.4f}, {best:.4f}"
        raise DataError(what, value, hint="--force promotes it")


def resolve(uri: str, data_root: Path) -> Path:
    """Return the folder of a model that is named `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        NotFoundError: there is none.
        UnavailableError: MLflow does not answer.
    """
    reference = Reference.parse(uri)
    return download(find(*reference), data_root / "models")
