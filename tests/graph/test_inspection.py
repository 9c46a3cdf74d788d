"""`citeflow inspect`: each thing that looks wrong is named, and what is fine is not."""

import numpy as np
import pytest

from citeflow.config import DataConfig
from citeflow.errors import NotFoundError
from citeflow.graph.inspection import as_table, inspect_source

PAPERS = 120
YEARS = [2000 + row // 6 for row in range(PAPERS)]
PAIRS = [(row, row - step) for row in range(PAPERS) for step in (6, 7, 11, 13) if row >= step]


def write(folder, papers=None, pairs=PAIRS, header="id,year", cited=lambda row: f"p{row}"):
    folder.mkdir(exist_ok=True)
    rows = papers or [f"p{row},{year}" for row, year in enumerate(YEARS)]
    (folder / "papers.csv").write_text("\n".join([header, *rows]) + "\n")
    lines = [f"p{a},{cited(b)}" for a, b in pairs]
    (folder / "citations.csv").write_text("\n".join(["citing,cited", *lines]) + "\n")
    return folder


@pytest.fixture
def inspect(tmp_path):
    def run(folder):
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        return inspect_source(str(folder), scratch, DataConfig(holdout=0.5, eval_negatives=20))

    return run


def test_sound_folder_has_its_facts_and_no_warnings(tmp_path, inspect):
    result = inspect(write(tmp_path / "in"))
    assert (result.papers, result.citations, result.unknown) == (PAPERS, len(PAIRS), 0)
    assert result.dates == {
        "column": "year", "missing": 0, "first": "2000-01-01", "last": "2019-01-01"
    }  # fmt: skip
    assert result.warnings == []
    assert result.split["kind"] == "by date"
    assert result.split["sources"] == 60
    candidates = result.split["candidates"]
    # The newest paper has 114 older ones and cites 4 of them.
    assert candidates["most"] == 110
    assert candidates["fewest"] <= candidates["median"] <= candidates["most"]
    assert result.next == f"citeflow run --dataset {tmp_path / 'in'}"
    assert f"papers          {PAPERS}" in as_table(result)


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ({"papers": [f"p{row},{9999 if row > 110 else year}" for row, year in enumerate(YEARS)]},
         "9 papers have the year 9999: a placeholder"),
        ({"papers": [f"p{row},{'1970-01-01' if row < 5 else f'{year}-02-01'}"
                     for row, year in enumerate(YEARS)], "header": "id,date"},
         "5 papers have the date 1970-01-01: a placeholder"),
        ({"papers": [f"p{row},{'' if row == 7 else year}" for row, year in enumerate(YEARS)]},
         "1 of 120 papers have no year"),
        ({"pairs": [*PAIRS, *((b, a) for a, b in PAIRS)]}, "are listed in both directions"),
        ({"pairs": [(b, a) for a, b in PAIRS]}, "are citing and cited swapped?"),
        ({"cited": lambda row: f"P{row}"}, "differ from one in upper case, blanks or Unicode form"),
        ({"papers": [f"{row},{year}" for row, year in enumerate(YEARS)],
          "cited": lambda row: f"{row}.0"}, "look like decimals, such as '0.0'"),
        ({"papers": [*(f"p{row},{year}" for row, year in enumerate(YEARS)), "P7,2003"]},
         "1 ids of papers differ from others in case"),
        ({"pairs": [*PAIRS, *((row, 0) for row in range(20, 100))]}, "p0 is cited by 8"),
        ({"pairs": [*PAIRS, *((119, row) for row in range(80))]}, "p119 cites 8"),
        ({"papers": [f"p{row},{2999 if row == 119 else year}" for row, year in enumerate(YEARS)]},
         "1 papers are of the future, such as 2999"),
        ({"pairs": PAIRS[-8:]}, "test sources: 2; a figure of so few says little"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_named(change, warning, tmp_path, inspect):
    result = inspect(write(tmp_path / "in", **change))
    assert any(warning in each for each in result.warnings), result.warnings


def test_unreadable_folder_says_why_and_names_no_command(tmp_path, inspect):
    result = inspect(write(tmp_path / "in", cited=lambda row: f"{row}.0"))
    assert result.warnings[0].startswith("cannot be read: ")
    assert (result.next, result.citations) == ("", len(PAIRS))


def test_features_text_and_what_is_ignored_are_named(tmp_path, inspect):
    rows = [f"p{row},{year},0.5,red,Words {row}" for row, year in enumerate(YEARS)]
    folder = write(tmp_path / "in", papers=rows, header="id,year,weight,color,title")
    np.save(folder / "features.npy", np.zeros((PAPERS, 2), np.float32))
    result = inspect(folder)
    assert result.features == ["features.npy", "'weight'"]
    assert result.text == ["title"]
    assert result.ignored == {"'color'": "not numbers"}


def test_citations_of_unknown_papers_lead_to_the_setting(tmp_path, inspect):
    result = inspect(write(tmp_path / "in", cited=lambda row: "none" if row == 3 else f"p{row}"))
    assert result.unknown == 4
    assert result.next.endswith("--set data.unknown=drop")


def test_nothing_is_not_found(tmp_path, inspect):
    with pytest.raises(NotFoundError):
        inspect(tmp_path / "none")
