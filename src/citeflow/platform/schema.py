"""Bodies of requests and answers of the platform's API; web/openapi.json is made from them.

Times are UTC; memory and disk are bytes.
"""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from citeflow.utils.records import Record

Role = Literal["user", "admin"]
Size = Literal["S", "M", "L"]
TaskName = Literal["citation", "images"]
State = Literal["queued", "running", "stopping", "stopped", "succeeded", "failed"]

MAX_INTEGER = 2**31 - 1
"""Of the database."""

MAX_NAME = 63
MIN_PASSWORD = 10
MAX_PASSWORD = 1_000

Name = StrictStr
Value = StrictBool | StrictInt | float | StrictStr
"""A value of a setting."""


class Amounts(BaseModel):
    """An amount of a machine."""

    cores: int
    memory: int
    disk: int


class SizeBody(Amounts):
    """A size that an environment can have."""

    size: Size


class Link(BaseModel):
    """A page of another program."""

    name: str
    url: str


class EnvironmentBody(Amounts):
    """The quota of a user, and what is used of it."""

    size: Size
    used: Amounts
    state: Literal["ready", "preparing", "suspended"]
    detail: str
    links: list[Link]


class EnvironmentRequest(Record):
    """A wish for an environment."""

    size: Size


class SetupBody(BaseModel):
    """The facts for somebody who is not logged in."""

    first_user: bool
    """Nobody has an account yet: the link that the server has printed makes the first one."""
    name: str = ""
    """Of the account that the token of the link belongs to; empty where it may be chosen."""
    oidc: str
    """Name of the identity provider through which people log in; empty where there is none."""
    version: str


class SetupRequest(Record):
    """An account that is opened by a link."""

    token: StrictStr = Field(max_length=200)
    name: Name = Field("", max_length=MAX_NAME)
    """Only for the first account, whose link knows none."""
    password: StrictStr = Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class SessionRequest(Record):
    """A log-in."""

    name: Name = Field(max_length=MAX_NAME)
    password: StrictStr = Field(max_length=MAX_PASSWORD)


class PasswordRequest(Record):
    """A change of one's own password; it ends all other sessions."""

    old: StrictStr = Field(max_length=MAX_PASSWORD)
    new: StrictStr = Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)


class Me(BaseModel):
    """The user who asks."""

    name: str
    role: Role
    environment: EnvironmentBody | None


class FormField(BaseModel):
    """A setting."""

    name: str
    """Such as `train.minutes`."""
    label: str
    help: str
    group: str
    type: Literal["number", "integer", "text", "choice", "bool"]
    default: Value
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    choices: list[str] = []
    advanced: bool


class Choice(BaseModel):
    """A dataset or a model by name."""

    name: str
    help: str


class Preset(Choice):
    """Settings under one name, over the defaults."""

    settings: dict[str, Value]


class FormBody(BaseModel):
    """Everything that can be chosen for a run."""

    task: TaskName
    fields: list[FormField]
    datasets: list[Choice]
    models: list[Choice]
    presets: list[Preset]
    max_workers: int
    """By the quota of the user; 1 without an environment."""
    code_problem: str
    """Why code of one's own cannot run here; empty where it can."""


class Submission(Record):
    """A run that is asked for."""

    task: TaskName = "citation"
    name: Name = Field("", max_length=MAX_NAME)
    """Of a-z, 0-9 and -; by default dataset and time."""
    dataset: StrictStr = Field(min_length=1, max_length=2_000)
    """A name of the form, `upload:ID`, or the URL of a file or an archive."""
    model: StrictStr = Field("", max_length=200)
    """A name of the form's models; by default the first."""
    preset: StrictStr = Field("default", max_length=40)
    workers: StrictInt = Field(1, ge=1, le=1_024)
    settings: dict[str, Value] = Field(default_factory=dict, max_length=200)
    """Values by full name, over those of the preset; `model.weights` and `model.code` are
    `upload:ID`."""


class PreviewBody(BaseModel):
    """The run that a submission would start."""

    yaml: str
    """The job that trains it on a cluster."""
    memory: int | None
    """Peak memory of the training; null where the data is not known yet."""
    seconds: float | None
    """Time of the training; null where it ends by epochs."""
    fits: bool
    detail: str
    """Why it does not fit, or what is not known."""


class Score(BaseModel):
    """A figure by which runs are compared."""

    name: str
    value: float


class ProgressBody(BaseModel):
    """The progress of a run."""

    stage: str
    doing: str = ""
    """Newest words of its log."""
    seconds: float = 0.0
    """Since the first line of the stage."""
    step: int | None = None
    steps: int | None = None
    """Null where the end is a time, or nothing is counted."""
    fraction: float | None = None
    """Of what is counted, in 0..1."""
    seconds_left: float | None = None
    """Of what is counted."""


class Can(BaseModel):
    """The actions that a run allows at the moment."""

    cancel: bool
    resume: bool
    delete: bool
    promote: bool


class RunBody(BaseModel):
    """A run."""

    id: str
    name: str
    task: TaskName
    owner: str
    state: State
    detail: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    queue_position: int | None
    """1 for the next one of all users."""
    score: Score | None
    spark: list[float]
    """Validation scores so far."""
    progress: ProgressBody | None
    workers: int
    dataset: str
    model: str
    settings: dict[str, Value]
    """Those that were given."""
    has_report: bool
    can: Can


class RunList(BaseModel):
    """Runs, the newest first."""

    runs: list[RunBody]


class MetricsEvent(BaseModel):
    """Figures of a step.

    One whose step is below the last one's replaces those beyond it: the run was resumed.
    """

    step: int
    seconds: float
    """Since the first figure of the run."""
    values: dict[str, float]


class RankResources(BaseModel):
    """Resources of a rank."""

    rank: int
    cores: float
    memory: int


class ResourcesEvent(BaseModel):
    """Resources of all ranks together, and of each."""

    seconds: float
    cores: float
    memory: int
    ranks: list[RankResources]


class LogLine(BaseModel):
    """A line of the log."""

    rank: int | None
    """Null where no rank has written it."""
    n: int
    """1 for the first line."""
    line: str


class LogBody(BaseModel):
    """Lines of the log of a run."""

    lines: list[LogLine]
    ranks: list[int]


class ComparedRow(BaseModel):
    """A figure of several runs."""

    metric: str
    help: str
    values: list[float | None]
    better: Literal["higher", "lower"]


class ComparedSetting(BaseModel):
    """A setting that differs between runs."""

    name: str
    values: list[Value | None]


class Series(BaseModel):
    """A curve of a run."""

    run: str
    metric: str
    points: list[tuple[float, float]]
    """Steps and values."""


class Comparison(BaseModel):
    """Several runs side by side; lists of values are in the order of `runs`."""

    runs: list[RunBody]
    rows: list[ComparedRow]
    settings: list[ComparedSetting]
    series: list[Series]


class VersionBody(BaseModel):
    """A trained model."""

    version: int
    run: str
    """Id of the run that trained it."""
    run_name: str
    created: datetime
    dataset: str
    scores: dict[str, float]
    """Test MRR by protocol."""
    score: float | None
    aliases: list[str]
    has_code: bool
    """It has code of its own: only its training runs that, so that nobody can ask or deploy it."""


class DeploymentBody(BaseModel):
    """The version that answers."""

    version: int
    state: Literal["preparing", "ready", "failed"]
    detail: str
    p50: float | None
    """Seconds of an answer; null before the first."""
    p99: float | None


class ModelBody(BaseModel):
    """A model with its versions, the newest first."""

    name: str
    versions: list[VersionBody]
    deployment: DeploymentBody | None


class ModelList(BaseModel):
    """Models by name."""

    models: list[ModelBody]


class AliasRequest(Record):
    """A version that an alias is to name."""

    version: StrictInt = Field(ge=1, le=MAX_INTEGER)
    force: StrictBool = False
    """Also where it is no better than the one that the alias names."""


class DeploymentRequest(Record):
    """A version that is to answer."""

    version: StrictInt = Field(ge=1, le=MAX_INTEGER)


class PaperBody(BaseModel):
    """A paper of the graph."""

    id: int | str
    title: str | None
    year: int | None


class PaperList(BaseModel):
    """Papers that were found, the most cited first."""

    papers: list[PaperBody]


class CitationsRequest(Record):
    """A paper of the graph, or whatever is known of a new one."""

    paper: StrictStr = Field("", max_length=1_000)
    title: StrictStr = Field("", max_length=2_000)
    abstract: StrictStr = Field("", max_length=20_000)
    references: list[StrictStr] = Field(default_factory=list, max_length=10_000)
    top: StrictInt = Field(10, ge=1, le=100)


class Citation(PaperBody):
    """A paper that is probably missing from the references."""

    probability: float
    score: float
    reasons: list[str]


class CitationsBody(BaseModel):
    """Papers that are probably missing, the likeliest first."""

    answers: list[Citation]
    notes: list[str]
    """What was left out, and where the model is out of its depth."""
    version: int


class UserBody(BaseModel):
    """An account, as an admin sees it."""

    name: str
    role: Role
    created: datetime
    last_seen: datetime | None
    suspended: bool
    environment: EnvironmentBody | None
    runs: int


class UserList(BaseModel):
    """All accounts by name."""

    users: list[UserBody]


class UserRequest(Record):
    """An account that is made."""

    name: Name = Field(max_length=MAX_NAME)
    role: Role = "user"
    size: Size | None = None


class UserLink(BaseModel):
    """The link by which a new user sets a password."""

    name: str
    link: str


class UserChange(Record):
    """Changes of an account; what is not named stays."""

    role: Role | None = None
    size: Size | None = None
    suspended: StrictBool | None = None


class AuditEntry(BaseModel):
    """Something that somebody did, or tried."""

    id: int
    time: datetime
    user: str
    action: str
    object: str
    outcome: str


class AuditBody(BaseModel):
    """Entries, the newest first."""

    entries: list[AuditEntry]
