"""`citeflow predict`: formats, files, and calls that cannot be answered."""

import csv
import io
import json
import re

import numpy as np
import pytest

from citeflow.cli.main import main


@pytest.fixture
def call(trained, capsys):
    """Run the command on the session's model; returns exit code, stdout and stderr."""

    def call(*options, run=trained.run_dir, root=trained.data_root):
        code = main(["predict", str(run), "--data-root", str(root), *options])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def call_text(call, text_trained):
    """Run the command on a model that reads text."""
    return lambda *options: call(*options, run=text_trained.run.name, root=text_trained.data_root)


def ids(output):
    return [each["id"] for each in json.loads(output)["predictions"]]


def test_predict_prints_one_object_with_reasons(call):
    code, out, _ = call("--paper", "p300", "-k", "3")
    assert code == 0
    values = json.loads(out)
    assert [each["rank"] for each in values["predictions"]] == [1, 2, 3]
    assert all(each["reasons"] for each in values["predictions"])
    rows = list(csv.DictReader(io.StringIO(call("--paper", "p300", "-k", "3", "--csv")[1])))
    assert [row["id"] for row in rows] == ids(out)
    assert call("--paper", "p300", "-k", "3", "--bibtex")[1].count("@misc{p") == 3
    table = call("--paper", "p300", "--table")[1]
    assert len(re.findall(r"^ +\d+  [01]\.\d\d  p", table, re.MULTILINE)) == 10


def test_several_papers_are_the_references_of_one(call, tmp_path):
    seeds = ("p100", "p120", "p140")
    _, out, err = call(*(f"--paper={seed}" for seed in seeds))
    (tmp_path / "ids.txt").write_text("p100\np120, p140\n")
    for given in (",".join(seeds), "@ids.txt"):
        assert ids(call("--references", given)[1]) == ids(out)
    assert not set(seeds) & set(ids(out))
    assert "note: no features of its own" in err


def test_text_comes_from_a_file_stdin_or_options(call_text, tmp_path, monkeypatch):
    text = "A new paper: theme1 theme2 theme3\n\nIts abstract: theme4 theme5\n"
    (tmp_path / "paper.txt").write_text(f"\ufeff{text}")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    title, _, abstract = text.partition("\n")
    results = [
        call_text("--text", "paper.txt"),
        call_text("--text", "-"),
        call_text("--title", title, "--abstract", abstract),
    ]
    assert len({out for _, out, _ in results}) == 1
    code, out, err = results[0]
    assert (code, len(ids(out))) == (0, 10)
    assert "note: no references" in err


def test_batch_prints_a_line_for_each_paper(call_text, tmp_path):
    queries = [
        {"id": "a", "title": "theme1 theme2", "references": [7, 9], "abstract": None},
        {"paper": 250},
        {"paper": "nobody"},
        {"title": "theme3", "date": 1990},
    ]
    lines = [json.dumps(each) for each in queries]
    (tmp_path / "papers.jsonl").write_text("\n\n".join(lines))
    code, out, err = call_text("--batch", "papers.jsonl", "-k", "2")
    assert code == 0
    answers = [json.loads(line) for line in out.splitlines()]
    assert [each["line"] for each in answers] == [1, 3, 5, 7]
    assert [len(each.get("predictions", ())) for each in answers] == [2, 2, 0, 2]
    assert answers[0]["id"] == "a"
    assert answers[2]["error"]["what"] == "no paper with this id"
    assert "papers=4 errors=1" in err
    alone = call_text("--title", "theme1 theme2", "--references", "7,9", "-k", "2")[1]
    assert ids(alone) == [each["id"] for each in answers[0]["predictions"]]


@pytest.fixture
def files_of_faults(tmp_path):
    """Files that are not what they should be."""
    (tmp_path / "empty.txt").write_text(" \n\n")
    (tmp_path / "binary").write_bytes(b"\x00\xff" * 50)
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.7\n\xff\xfe")
    (tmp_path / "latin.txt").write_bytes("Über Strings".encode("latin-1"))
    (tmp_path / "long.txt").write_text("word " * 300_000)
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "words.npy", np.array(["a"]))
    np.save(tmp_path / "many.npy", np.zeros((3, 128)))
    np.save(tmp_path / "narrow.npy", np.zeros(3))
    np.save(tmp_path / "nan.npy", np.full(128, np.nan))
    (tmp_path / "list.jsonl").write_text('{"paper": "p1"}\n[1]\n')
    (tmp_path / "word.jsonl").write_text('{"paper": "p1"}\nnope\n')
    (tmp_path / "field.jsonl").write_text('{"refs": ["p1"]}\n')
    (tmp_path / "kind.jsonl").write_text('{"references": "p1"}\n')


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("", 64, "no paper is given"),
        ("--paper P300", 66, "did you mean p300"),
        ("--paper p1 --title On", 64, "either --paper or a new paper"),
        ("--paper p1 --date 2003", 64, "--date is of a new paper: 2003"),
        ("--text none.txt", 66, "no such file: none.txt"),
        ("--text .", 66, "no such file"),
        ("--text empty.txt", 65, "no text in: empty.txt"),
        ("--text binary", 65, "not UTF-8 text: binary"),
        ("--text paper.pdf", 65, "paper.pdf is a PDF"),
        ("--text latin.txt", 65, "not UTF-8 text: latin.txt"),
        ("--text long.txt", 65, "1,500,000 bytes"),
        ("--text empty.txt --title On", 64, "either --text or --title"),
        ("--title=", 64, "the text is empty"),
        ("--title On", 64, "this model does not read text: 'On'"),
        ("--references ,", 65, "no identifiers in: ,"),
        ("--references Q1,Q2", 66, "no reference is in the graph: 'Q1'"),
        ("--references p1 --date 2003-13-01", 64, "not a date: '2003-13-01'"),
        ("--references p1 --date yesterday", 64, "not a date: 'yesterday'"),
        ("--references p300 --date 1700", 65, "no paper is left to rank: 1700-01-01"),
        ("--references p1 --since NaT", 64, "not a date: 'NaT'"),
        ("--paper p1 --since 2500", 65, "no paper is left"),
        ("--features none.npy", 66, "no such file: none.npy"),
        ("--features text.npy", 65, "not a usable .npy array"),
        ("--features words.npy", 65, "does not hold real numbers"),
        ("--features many.npy", 65, "holds more than one paper: (3, 128)"),
        ("--features narrow.npy", 65, "wrong number of features: 3"),
        ("--features nan.npy", 65, "not finite"),
        ("--batch none.jsonl", 66, "no such file: none.jsonl"),
        ("--batch empty.txt", 65, "no papers in: empty.txt"),
        ("--batch binary", 65, "not UTF-8 text"),
        ("--batch word.jsonl", 65, "word.jsonl, line 2: not JSON: 'nope'"),
        ("--batch list.jsonl", 65, "list.jsonl, line 2 must hold keys and values"),
        ("--batch field.jsonl", 65, "line 1.refs"),
        ("--batch kind.jsonl", 65, "line 1.references"),
        ("--batch list.jsonl --paper p1", 64, "either one paper or --batch"),
        ("--batch list.jsonl --csv", 64, "--batch prints JSON lines, not: csv"),
        ("--paper p1 -k 0", 64, "x>=1"),
    ],
)
def test_predict_says_what_is_wrong_in_two_lines(call, files_of_faults, options, code, message):
    found, out, err = call(*options.split(" ") if options else ())
    assert (found, out) == (code, "")
    assert re.search(r"(^|\n)error: .+\n(hint: .+\n)?$", err)
    assert message in err
    assert "Traceback" not in err
