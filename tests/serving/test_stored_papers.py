"""Names on the disk are found as names in memory are, and titles by their words."""

import numpy as np
import pyarrow as pa
import pytest

from citeflow.errors import NotFoundError
from citeflow.evaluation.queries import PaperIndex
from citeflow.serving.citation.papers import StoredPapers, words_of, write

TITLES = [
    "On the Origin of Strings",
    "Strings, Branes and Gravity",
    "Gravity",
    "",
    "On Stringy Branes",
    "Schrödinger's ÉTALE cats",
    "on the origin of: strings!",
]
IDS = ["b", "a/1", "10", "9", "Ä", "z", "á"]
CITED = np.array([1, 5, 9, 3, 2, 0, 7])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("names")
    write(folder, pa.chunked_array([IDS[:3], IDS[3:]]), pa.chunked_array([TITLES]), CITED)
    return StoredPapers(folder, are_numbers=False)


def test_every_name_is_found_as_in_memory(index, trained, graph_papers):
    stored = index.papers
    assert stored.ids[:] == graph_papers.ids
    assert stored.titles[:] == graph_papers.titles
    for row in range(len(stored.ids)):
        assert stored.find(f" {stored.ids[row]} ") == row
        assert stored.find_title(stored.titles[row].upper()) == row
    for name in ("", "p", "p400", "nobody", "\ud800", "p1\0"):
        assert stored.find(name) is None
    with pytest.raises(NotFoundError) as raised:
        stored.get("p39o")
    assert "did you mean p39" in raised.value.hint


@pytest.fixture(scope="module")
def graph_papers(trained):
    from citeflow.graph.prepared import PreparedGraph

    return PaperIndex(PreparedGraph.open(trained.graph))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("gravity", [2, 1]),
        ("string", [6, 1, 4, 0]),  # the beginning of the last word
        ("string ", []),  # a whole word
        ("strings origin", [6, 0]),
        ("the strings the", [6, 0]),
        ("gr", []),  # too short for a beginning
        ("étale schrödinger", [5]),
        ("branes gravity", [1]),
        ("a/1", [1]),
        ("10", [2]),
        ("", []),
        ("?!", []),
        ("zebra strings", []),
        ("\ud800", []),
    ],
)
def test_search_lists_titles_with_all_words_most_cited_first(stored, text, rows):
    assert stored.search(text, 10) == rows
    assert stored.search(text, 1) == rows[:1]


def test_titles_are_compared_by_letters_and_digits(stored):
    assert stored.find_title("ON THE ORIGIN OF STRINGS") == 0
    assert stored.find_title("Schrödinger's étale cats?") == 5
    assert stored.find_title("strings") is None
    assert stored.find_title("...") is None


def test_names_may_be_numbers_and_titles_may_be_missing(tmp_path):
    write(tmp_path, pa.chunked_array([[10, 9], [100]]), None, np.zeros(3))
    stored = StoredPapers(tmp_path, are_numbers=True)
    assert stored.ids[:] == [10, 9, 100]
    assert [stored.find(name) for name in ("9", "10", "100", "1")] == [1, 0, 2, None]
    assert stored.titles is None
    assert stored.find_title("any") is None
    assert stored.search("100", 5) == [2]
    assert words_of("A-b_c 1") == ["a", "b_c", "1"]
