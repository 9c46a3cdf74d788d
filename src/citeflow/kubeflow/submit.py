"""What is uploaded to Kubeflow Pipelines, under which name, and the run that is started from it.

`plan` settles everything without a server; `submit` carries it out. Nothing is made twice: the pipeline, its version
and the experiment are found again by name, and a run whose answer was lost by an id in its description.
"""

import hashlib
import os
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from citeflow import __version__, config, files, paths
from citeflow.errors import INSTALL, CiteflowError, ConfigError, UnavailableError
from citeflow.experiments import search_space, trials
from citeflow.kubeflow import local_runner as pipeline
from citeflow.kubeflow import params
from citeflow.kubeflow.client import Server
from citeflow.kubeflow.pipeline_spec import with_images, without_cache
from citeflow.utils.logging import log
from citeflow.utils.records import convert, nearest, parse_scalar

_SHA256 = re.compile("sha256 ([0-9a-f]{64})")
"""In the description of a version: the digest of what was uploaded."""

GIT_S = 10.0
CRON_FIELDS = 6
KINDS: dict[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A pipeline to upload and, where it has a run name, a run to start."""

    text: str = field(repr=False)
    pipeline: str
    version: str
    experiment: str
    run_name: str
    parameters: Mapping[str, Any]
    service_account: str = ""
    cron: str = ""
    max_concurrency: int = 1
    catchup: bool = False

    @property
    def sha256(self) -> str:
        """Digest of what is uploaded."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def plan(
    parameters: Mapping[str, Any] | None = None,
    *,
    compiled: str = "citation",
    text: str = "",
    pipeline_name: str = "",
    version: str = "",
    experiment: str = "",
    run_name: str = "",
    step_image: str = "",
    train_image: str = "",
    use_cache: bool = True,
    service_account: str = "",
    cron: str = "",
    max_concurrency: int = 1,
    catchup: bool = False,
) -> Plan:
    """Settle what is to be uploaded and run.

    Args:
        parameters: values of the pipeline's parameters, or texts of them; what is not named keeps its default.
        compiled: which of the compiled pipelines, one of `pipeline.NAMES`.
        text: another compiled pipeline.
        pipeline_name: its name on the server; by default that of the compiled one.
        version: name of the version; by default `version_name`.
        experiment: by default what $KF_PIPELINES_DEFAULT_EXPERIMENT_NAME says, or "citeflow".
        run_name: by default made of dataset, date and time.
        step_image: image of all steps, in place of the compiled one.
        train_image: image of the workers of a PyTorchJob or TrainJob, in place of the compiled one.
        use_cache: False makes every step run, by another version of the pipeline whose steps are not cached.
        service_account: that the steps run as; by default what the server has set.
        cron: makes it a recurring run: second, minute, hour, day, month, weekday.
        max_concurrency: runs of a recurring run at a time.
        catchup: whether runs that were missed are made up for.

    Raises:
        ConfigError: there is no such parameter, a value does not fit it, or the pipeline would not be valid.
    """
    text = with_images(
        text or pipeline.compiled(compiled).read_text(),
        step_image=step_image,
        train_image=train_image,
    )
    text = text if use_cache else without_cache(text)
    validate(text)
    values = checked(text, parameters or {})
    check(values)
    override, default = (
        os.environ.get(f"KF_PIPELINES_{name}_EXPERIMENT_NAME") for name in ("OVERRIDE", "DEFAULT")
    )
    return Plan(
        text=text,
        pipeline=pipeline_name or compiled,
        version=version or version_name(text, compiled),
        experiment=override or experiment or default or "citeflow",
        run_name=run_name
        or paths.make_name(str(values.get("dataset", compiled)), time.strftime("%Y%m%d-%H%M%S")),
        parameters=values,
        service_account=service_account,
        cron=_checked_cron(cron),
        max_concurrency=max_concurrency,
        catchup=catchup,
    )


def check(values: Mapping[str, Any]) -> None:
    """Find out before a pipeline runs what its first steps would refuse.

    Raises:
        ConfigError: a value is wrong.
    """
    if "dataset" not in values:
        return
    settings = params.resolve(values)
    text = config.to_yaml(settings)
    if "models" in values:
        trials.comparison_trials(text, "any", values["models"], values["seeds"], values["workers"])
    elif isinstance(values["workers"], list):
        trials.scaling_trials(text, "any", values["workers"], values["epochs"])
    elif "space" in values:
        search_space.from_yaml(values["space"], settings)
        search_space.check_trials(values["trials"], values["parallel"])


def described(planned: Plan) -> dict[str, Any]:
    """What `submit` would send, with the digest in place of the pipeline's text."""
    told = {
        item.name: getattr(planned, item.name) for item in fields(planned) if item.name != "text"
    }
    return {**told, "sha256": planned.sha256}


def upload(server: Server, planned: Plan) -> dict[str, Any]:
    """Upload the pipeline as a version of its own, unless it is there; returns pipeline_id, version_id, version, url.

    Raises:
        ConfigError: there is a version of this name with another content.
        UnavailableError: the server does not answer.
    """
    found = server.pipeline(planned.pipeline)
    with tempfile.TemporaryDirectory(prefix="citeflow-") as folder:
        path = Path(folder) / "pipeline.yaml"
        files.write_text(path, planned.text)
        description = f"citeflow {__version__}, sha256 {planned.sha256}"
        version = server.version(found.pipeline_id, planned.version, path, description)
    there = _SHA256.search(version.description or "")
    if there and there[1] != planned.sha256:
        hint = "commit your changes, or give --pipeline-version another name"
        raise ConfigError("there is another pipeline of this version", planned.version, hint=hint)
    ids = {"pipeline_id": found.pipeline_id, "version_id": version.pipeline_version_id}
    url = server.page(f"pipelines/details/{ids['pipeline_id']}/version/{ids['version_id']}")
    log("submit", "has the pipeline", name=planned.pipeline, version=planned.version)
    return {**ids, "version": planned.version, "url": url}


def submit(server: Server, planned: Plan) -> dict[str, Any]:
    """Upload the pipeline and start the run, or the recurring run, from the version on the server.

    Returns:
        run_id (or recurring_run_id), pipeline_id, version_id, version, experiment_id, name, url, state.

    Raises:
        ConfigError: the server refuses, or has another pipeline of this version.
        UnavailableError: the server does not answer; the run may exist if the error says that no answer came.
    """
    ids = upload(server, planned)
    experiment = server.experiment(planned.experiment)
    body = {
        "experiment_id": experiment.experiment_id,
        "display_name": planned.run_name,
        "description": f"submitted by citeflow {__version__}, {uuid.uuid4()}",
        "pipeline_id": ids["pipeline_id"],
        "version_id": ids["version_id"],
        "parameters": dict(planned.parameters),
        "service_account": planned.service_account or None,
    }
    told = {**ids, "experiment_id": experiment.experiment_id, "name": planned.run_name}
    if planned.cron:
        recurring = server.recurring_run(
            body,
            cron=planned.cron,
            max_concurrency=planned.max_concurrency,
            catchup=planned.catchup,
        )
        page = server.page(f"recurringrun/details/{recurring.recurring_run_id}")
        return {
            "recurring_run_id": recurring.recurring_run_id,
            **told,
            "url": page,
            "state": recurring.status,
        }
    run = server.run(body)
    return {"run_id": run.run_id, **told, "url": server.run_page(run.run_id), "state": run.state}


def validate(text: str) -> None:
    """Let kfp read a compiled pipeline, platform part and all.

    Raises:
        CiteflowError: it can not.
        UnavailableError: kfp is not installed.
    """
    try:
        from kfp import components
    except ImportError:
        raise UnavailableError("package is not installed", "kfp", hint=INSTALL) from None
    try:
        components.load_component_from_text(text)
    except Exception as error:
        raise CiteflowError(
            "not a pipeline that kfp can read", str(error).splitlines()[0]
        ) from None


def checked(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all parameters of a compiled pipeline, those that are given over its defaults.

    Raises:
        ConfigError: a name is unknown, a value does not fit, or one is missing.
    """
    known = next(yaml.safe_load_all(text))["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in given:
        if name not in known:
            raise ConfigError("unknown parameter of the pipeline", name, hint=nearest(name, known))
    values = {
        name: entry["defaultValue"] for name, entry in known.items() if "defaultValue" in entry
    } | dict(given)
    for name, entry in known.items():
        if name not in values and not entry.get("isOptional"):
            raise ConfigError(
                "parameter of the pipeline is missing", name, hint=f"--param {name}=VALUE"
            )
    return {name: _checked_value(name, value, known[name]) for name, value in values.items()}


def _checked_value(name: str, value: object, entry: Mapping[str, Any]) -> Any:
    kind = KINDS[entry["parameterType"]]
    if isinstance(value, str) and kind is not str:
        value = parse_scalar(name, value)
        if kind is list and isinstance(
            value, (str, int, float)
        ):  # numbers with commas between them
            value = parse_scalar(name, f"[{value}]")
    if kind in (list, dict):
        if not isinstance(value, kind):
            raise ConfigError(
                name, value, hint=f"must be a {'list' if kind is list else 'mapping'}, as YAML"
            )
        return value
    value = convert(name, value, kind)
    if entry.get("literals") and value not in entry["literals"]:
        raise ConfigError(name, value, hint=f"one of {', '.join(map(str, entry['literals']))}")
    return value


def version_name(text: str, compiled: str = "citation") -> str:
    """Name a compiled pipeline `citeflow-<version>+<sha>`, so that one name never means two contents.

    The sha is the commit of the checkout if that holds this very text. If it holds another (uncommitted changes, other
    images, no cache), the text's own digest follows. Outside of a checkout the digest stands alone.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:7]
    path = pipeline.compiled(compiled)
    committed = _git(path.parent, "show", f"HEAD:./{path.name}")
    commit = _git(path.parent, "rev-parse", "--short=7", "HEAD").strip()
    if not committed or not commit:
        return f"citeflow-{__version__}+{digest}"
    return f"citeflow-{__version__}+{commit}" + ("" if committed == text else f"-{digest}")


def _git(folder: Path, *arguments: str) -> str:
    """What git answers, or nothing."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=GIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _checked_cron(cron: str) -> str:
    parts = cron.split()
    if cron and not cron.startswith("@") and len(parts) != CRON_FIELDS:
        hint = "second, minute, hour, day, month, weekday: '0 0 3 * * 1' is Monday at three"
        raise ConfigError("not a schedule of six fields", cron, hint=hint)
    return " ".join(parts)
