"""Bodies of requests and answers about citations, as the OpenAPI page describes them."""

from typing import Any, Literal

from pydantic import BaseModel, Field, JsonValue, StrictBool, StrictInt, StrictStr

from citeflow.evaluation.answers import Method, Wanted
from citeflow.evaluation.queries import QueryPaper
from citeflow.evaluation.reasons import Kind
from citeflow.serving.problems import ProblemBody
from citeflow.utils.records import Float, Record, Str

MAX_K = 1_000
MAX_QUERIES = 256
MAX_REFERENCES = 10_000

Id = int | str


class Options(Record):
    """Which papers are listed."""

    k: StrictInt = Field(10, ge=1, le=MAX_K)
    """Length of the list."""

    since: Str = Field("", max_length=40)
    """Date or year that candidates are not older than."""

    exclude_cited: StrictBool = True
    """Leave out what the paper cites already."""

    exact: StrictBool = False
    """Rank all papers, and not only those that a walk of the graph reaches."""

    def wanted(self) -> Wanted:
        """Return them as the engine takes them."""
        return Wanted(
            k=self.k, since=self.since, exclude_cited=self.exclude_cited, exact=self.exact
        )


class NewPaper(Record):
    """A new paper: whatever is known of it."""

    id: Str = Field("", max_length=1_000)
    """Your own name for it, which its answer repeats."""

    title: Str = ""

    abstract: Str = ""

    references: tuple[Str, ...] = Field((), max_length=MAX_REFERENCES)
    """Ids of papers of the graph that it cites."""

    papers: tuple[Str, ...] = Field((), max_length=MAX_REFERENCES)
    """Several seeds, which are taken as references of one new paper."""

    date: Str = Field("", max_length=40)
    """ISO date or year; by default that of the newest paper of the graph."""

    features: tuple[Float, ...] | None = None
    """Features, where those of the dataset are not made of text."""

    def query(self) -> QueryPaper:
        """Return it as the engine takes it."""
        return QueryPaper(
            id=self.id,
            title=self.title,
            abstract=self.abstract,
            references=(*self.papers, *self.references),
            date=self.date,
            features=self.features,
        )


class NewPaperRequest(NewPaper, Options):
    """A new paper, and which papers are listed for it."""


class Query(NewPaper):
    """A paper of the graph, or a new one."""

    paper: Str = Field("", max_length=1_000)
    """Id of a paper of the graph; the other fields describe a new one."""

    def query(self) -> QueryPaper:
        """Return it as the engine takes it."""
        return super().query().model_copy(update={"paper": self.paper})


class BatchRequest(Options):
    """Several papers, and which papers are listed for each."""

    queries: tuple[Query, ...] = Field(min_length=1, max_length=MAX_QUERIES)


class Reason(BaseModel):
    """One thing that speaks for a prediction; docs/predict.md has the kinds."""

    kind: Kind
    papers: list[Id] = []
    num_papers: int = 0
    citing: list[Id] = []
    num_citing: int = 0
    value: float
    text: str


class Prediction(BaseModel):
    """One paper that is probably missing."""

    rank: int
    id: Id
    title: str | None = None
    date: str | None = None
    probability: float
    logit: float
    is_cited: bool = False
    reasons: list[Reason]


class AnswerBody(BaseModel):
    """The predictions for one paper; `id`, `paper` and `title` are those that were given."""

    id: str = ""
    paper: str = ""
    title: str = ""
    remarks: list[str]
    predictions: list[Prediction]
    method: Method
    num_candidates: int


class FailedQuery(BaseModel):
    """A paper of a batch that cannot be answered."""

    id: str = ""
    paper: str = ""
    title: str = ""
    error: ProblemBody


class BatchBody(BaseModel):
    """An answer, or an error, for each query, in their order."""

    answers: list[AnswerBody | FailedQuery]


class PaperName(BaseModel):
    """A paper of the graph."""

    id: Id
    title: str | None = None


class PaperSummary(PaperName):
    """A paper that was found."""

    date: str | None = None
    cited_by: int


class PaperList(BaseModel):
    """Papers that were found, the most cited first."""

    papers: list[PaperSummary]


class PaperBody(PaperSummary):
    """A paper with its references, 50 at most."""

    num_references: int
    references: list[PaperName]


class About(BaseModel):
    """Facts of what answers: a model, and the graph that it was trained on."""

    name: str
    task: str
    version: str
    dataset: str
    num_papers: int
    num_citations: int
    has_dates: bool
    has_titles: bool
    has_text: bool
    num_features: int
    citeflow: str


class Tensor(BaseModel):
    """A tensor of the Open Inference Protocol, in JSON."""

    name: StrictStr
    shape: list[StrictInt] = Field(min_length=1, max_length=2)
    datatype: Literal["BYTES"]
    data: list[Any]
    parameters: dict[str, JsonValue] = {}


class InferRequest(BaseModel):
    """A request of the Open Inference Protocol; `parameters` may hold what `Options` has."""

    id: StrictStr = Field("", max_length=1_000)
    inputs: list[Tensor] = Field(min_length=1, max_length=8)
    parameters: dict[str, JsonValue] = {}
