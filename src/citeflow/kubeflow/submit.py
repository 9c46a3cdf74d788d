"""Upload a pipeline to Kubeflow Pipelines and start a run from it.

`plan` settles and checks everything without a server; `submit` carries it out. Nothing is created
twice: the pipeline, its version and the experiment are found again by name, and a run whose answer
was lost by an id in its description.
"""

import dataclasses
import hashlib
import os
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from citeflow import __version__, files, paths
from citeflow.errors import INSTALL, CiteflowError, ConfigError, MissingPackageError
from citeflow.kubeflow.client import KfpClient, RunRequest
from citeflow.kubeflow.params import RunParams
from citeflow.kubeflow.pipeline_spec import with_images, without_cache
from citeflow.kubeflow.pipelines import PIPELINES
from citeflow.utils.logging import log
from citeflow.utils.records import convert, nearest, one_line, parse_scalar

DEFAULT_EXPERIMENT = "citeflow"
EXPERIMENT = "Runs of citeflow: link predictors for citation networks, trained and evaluated."
"""Description of an experiment that is created."""

_SHA256 = re.compile("sha256 ([0-9a-f]{64})")
"""In the description of a version: the digest of what was uploaded."""

GIT_TIMEOUT_S = 10.0
CRON_FIELDS = 6
TYPES: dict[str, type] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": float,
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
"""KFP's types of parameters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """A pipeline as it is uploaded. What is empty has a default."""

    pipeline: str = "citation"
    """One of PIPELINES."""

    name: str = ""
    """Name on the server; by default that of the pipeline."""

    version: str = ""
    """Name of the version; by default `version_name`."""

    step_image: str = ""
    """Image of every stage; by default the compiled one."""

    train_image: str = ""
    """Image of the workers of a job; by default the compiled one."""

    no_cache: bool = False
    """Every stage runs: a version of its own, as a run cannot ask for that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """A run as it is started. What is empty has a default."""

    experiment: str = ""
    """By default $KF_PIPELINES_DEFAULT_EXPERIMENT_NAME, or DEFAULT_EXPERIMENT."""

    run_name: str = ""
    """On the run page and, unless there is a parameter of this name, on the volume and in
    TensorBoard; by default made from dataset, date and time."""

    service_account: str = ""
    """That the stages run as; by default what the server has set."""

    cron: str = ""
    """Makes it a recurring run: second, minute, hour, day, month, weekday."""

    max_concurrency: int = 1
    """Runs of a recurring run at a time."""

    catchup: bool = False
    """Whether runs that a recurring run missed are made up for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SubmissionPlan:
    """A pipeline to upload, and a run to start from it."""

    text: str = field(repr=False)
    """The compiled pipeline."""

    pipeline: str
    description: str = field(repr=False)
    """Of the pipeline, with a guide to the fields of its run form."""

    version: str
    experiment: str
    run_name: str
    parameters: Mapping[str, Any]
    service_account: str
    cron: str
    max_concurrency: int
    catchup: bool

    @property
    def sha256(self) -> str:
        """Digest of the compiled pipeline."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what would be sent as plain values, the digest in place of the pipeline."""
        values = dataclasses.asdict(self)
        del values["text"], values["description"]
        return {**values, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A version of a pipeline on the server."""

    pipeline_id: str
    version_id: str
    version: str
    url: str

    def describe(self) -> dict[str, str]:
        """Return plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission(Upload):
    """A run, or a recurring run, on the server."""

    run_id: str = ""
    recurring_run_id: str = ""
    experiment_id: str
    name: str
    state: str

    def describe(self) -> dict[str, str]:
        """Return plain values, the id first."""
        values = dataclasses.asdict(self)
        key = "run_id" if self.run_id else "recurring_run_id"
        del values["run_id"], values["recurring_run_id"]
        return {key: getattr(self, key), **values}


def plan(
    parameters: Mapping[str, Any] | None = None,
    package: Package | None = None,
    options: RunOptions | None = None,
) -> SubmissionPlan:
    """Settle what is to be uploaded and run.

    Args:
        parameters: values of the pipeline's parameters, or texts of them; the others keep their
            defaults.
        package: the pipeline.
        options: the run.

    Raises:
        ConfigError: there is no such parameter, a value does not fit it, or a first stage of the
            pipeline would refuse it.
    """
    package = package or Package()
    options = options or RunOptions()
    if package.pipeline not in PIPELINES:
        hint = nearest(package.pipeline, PIPELINES)
        raise ConfigError("no such pipeline", package.pipeline, hint=hint)
    pipeline = PIPELINES[package.pipeline]
    text = with_images(
        pipeline.compiled().read_text(),
        step_image=package.step_image,
        train_image=package.train_image,
    )
    if package.no_cache:
        text = without_cache(text)
    check_readable(text)
    values = typed_parameters(text, parameters or {})
    pipeline.validate(values)
    values = {
        name: one_line(value) if isinstance(value, str) and "\n" in value else value
        for name, value in values.items()
    }
    subject = str(values.get("dataset", pipeline.name))
    given = options.run_name or values.get("run_name", "")
    run_name = given or paths.make_name(subject, time.strftime("%Y%m%d-%H%M%S"))
    # Each run of a recurring one takes a name of its own from the server.
    if not values.get("run_name", "-") and not options.cron and paths.is_name(run_name):
        values["run_name"] = run_name
    return SubmissionPlan(
        text=text,
        pipeline=package.name or pipeline.name,
        description=describe(text),
        version=package.version or version_name(text, pipeline.compiled()),
        experiment=_experiment_name(options.experiment),
        run_name=run_name,
        parameters=values,
        service_account=options.service_account,
        cron=_checked_cron(options.cron),
        max_concurrency=options.max_concurrency,
        catchup=options.catchup,
    )


def upload(client: KfpClient, planned: SubmissionPlan) -> Upload:
    """Upload the pipeline as a version of its own, unless it is there.

    Raises:
        ConfigError: there is a version of this name with another content.
        UnavailableError: the server does not answer.
    """
    pipeline = client.get_or_create_pipeline(planned.pipeline, planned.description)
    with tempfile.TemporaryDirectory(prefix="citeflow-") as folder:
        path = Path(folder) / "pipeline.yaml"
        files.write_text(path, planned.text)
        subject = planned.description.partition("\n")[0]
        description = f"{subject} citeflow {__version__}, sha256 {planned.sha256}"
        version = client.get_or_upload_version(
            pipeline.pipeline_id, planned.version, path, description
        )
    digest = _SHA256.search(version.description or "")
    if digest and digest[1] != planned.sha256:
        hint = "commit your changes, or give --pipeline-version another name"
        raise ConfigError("there is another pipeline of this version", planned.version, hint=hint)
    log("submit", "has the pipeline", name=planned.pipeline, version=planned.version)
    version_id = version.pipeline_version_id
    return Upload(
        pipeline_id=pipeline.pipeline_id,
        version_id=version_id,
        version=planned.version,
        url=client.url(f"pipelines/details/{pipeline.pipeline_id}/version/{version_id}"),
    )


def submit(client: KfpClient, planned: SubmissionPlan, *, key: str = "") -> Submission:
    """Upload the pipeline and start the run, or the recurring run, from the version on the server.

    Args:
        client: the server.
        planned: pipeline and run.
        key: tells the run from others of its name, for `KfpClient.find_run`; by default a new one.

    Raises:
        ConfigError: the server refuses, or has another pipeline of this version.
        UnavailableError: the server does not answer; the run may exist if the error says so.
    """
    uploaded = upload(client, planned)
    experiment = client.get_or_create_experiment(planned.experiment, EXPERIMENT)
    request = RunRequest(
        experiment_id=experiment.experiment_id,
        pipeline_id=uploaded.pipeline_id,
        version_id=uploaded.version_id,
        name=planned.run_name,
        description=f"submitted by citeflow {__version__}, {key or uuid.uuid4()}",
        parameters=planned.parameters,
        service_account=planned.service_account,
    )
    run_id = ""
    recurring_run_id = ""
    if planned.cron:
        recurring = client.create_recurring_run(
            request,
            cron=planned.cron,
            max_concurrency=planned.max_concurrency,
            catchup=planned.catchup,
        )
        recurring_run_id = recurring.recurring_run_id
        state = recurring.status
        url = client.url(f"recurringrun/details/{recurring_run_id}")
    else:
        run = client.create_run(request)
        run_id = run.run_id
        state = run.state
        url = client.run_url(run_id)
    return Submission(
        pipeline_id=uploaded.pipeline_id,
        version_id=uploaded.version_id,
        version=uploaded.version,
        run_id=run_id,
        recurring_run_id=recurring_run_id,
        experiment_id=experiment.experiment_id,
        name=planned.run_name,
        url=url,
        state=state,
    )


def describe(text: str) -> str:
    """Describe a compiled pipeline and the fields of its run form, as Markdown.

    The form itself has no room for descriptions, and sorts its fields by their names. Here those
    come first that every pipeline has, in the order of `RunParams`.
    """
    spec = next(yaml.safe_load_all(text))
    parameters = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    shared = [name for name in RunParams.model_fields if name in parameters]
    lines = [
        f"- **{name}**: {' '.join(parameters[name].get('description', '').split())}"
        for name in dict.fromkeys([*shared, *parameters])
    ]
    return "\n".join([spec["pipelineInfo"].get("description", ""), "", *lines])


def check_readable(text: str) -> None:
    """Let kfp read a compiled pipeline, platform part and all.

    Raises:
        CiteflowError: it cannot.
        MissingPackageError: kfp is not installed.
    """
    try:
        from kfp import components
    except ImportError:
        raise MissingPackageError("package is not installed", "kfp", hint=INSTALL) from None
    try:
        components.load_component_from_text(text)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise CiteflowError("not a pipeline that kfp can read", reason) from None


def typed_parameters(text: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of all parameters of a compiled pipeline, in its types.

    Args:
        text: the compiled pipeline.
        given: some of the values, or texts of them; the others keep their defaults.

    Raises:
        ConfigError: a name is unknown, a value does not fit, or one is missing.
    """
    known = next(yaml.safe_load_all(text))["root"].get("inputDefinitions", {}).get("parameters", {})
    for name in given:
        if name not in known:
            raise ConfigError("unknown parameter of the pipeline", name, hint=nearest(name, known))
    values = {}
    for name, entry in known.items():
        if name in given:
            values[name] = _typed(name, given[name], entry)
        elif "defaultValue" in entry:
            values[name] = _typed(name, entry["defaultValue"], entry)
        elif not entry.get("isOptional"):
            hint = f"--param {name}=VALUE"
            raise ConfigError("parameter of the pipeline is missing", name, hint=hint)
    return values


def _typed(name: str, value: object, entry: Mapping[str, Any]) -> Any:
    kind = TYPES[entry["parameterType"]]
    if isinstance(value, str) and kind is not str:
        value = parse_scalar(name, value)
        # A list may be written as numbers with commas between them, which YAML takes for text.
        if kind is list and isinstance(value, (str, int, float)):
            value = parse_scalar(name, f"[{value}]")
    if kind in (list, dict):
        if not isinstance(value, kind):
            name_of_kind = "list" if kind is list else "mapping"
            raise ConfigError(name, value, hint=f"must be a {name_of_kind}, as YAML")
        return value
    value = convert(name, value, kind)
    choices = entry.get("literals")
    if choices and value not in choices:
        raise ConfigError(name, value, hint=f"one of {', '.join(map(str, choices))}")
    return value


def version_name(text: str, compiled: Path) -> str:
    """Name a version `citeflow-<version>+<sha>`, so that one name never means two contents.

    The sha is the commit of the checkout if that holds this very text. If it holds another one
    (uncommitted changes, other images, no cache), the digest of the text follows. Outside of a
    checkout the digest stands alone.

    Args:
        text: what is uploaded.
        compiled: the file that it was read from.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()[:7]
    committed = _git(compiled.parent, "show", f"HEAD:./{compiled.name}")
    commit = _git(compiled.parent, "rev-parse", "--short=7", "HEAD").strip()
    if not committed or not commit:
        return f"citeflow-{__version__}+{digest}"
    name = f"citeflow-{__version__}+{commit}"
    return name if committed == text else f"{name}-{digest}"


def _git(folder: Path, *arguments: str) -> str:
    """Return what git answers, or empty text."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _experiment_name(given: str) -> str:
    """Choose an experiment as kfp.Client does."""
    override = os.environ.get("KF_PIPELINES_OVERRIDE_EXPERIMENT_NAME")
    default = os.environ.get("KF_PIPELINES_DEFAULT_EXPERIMENT_NAME")
    return override or given or default or DEFAULT_EXPERIMENT


def _checked_cron(cron: str) -> str:
    """Refuse a crontab of five fields, which the server would read as another schedule."""
    parts = cron.split()
    if cron and not cron.startswith("@") and len(parts) != CRON_FIELDS:
        hint = "second, minute, hour, day, month, weekday: '0 0 3 * * 1' is Monday at three"
        raise ConfigError("not a schedule of six fields", cron, hint=hint)
    return " ".join(parts)
