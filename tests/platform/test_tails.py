from citeflow.platform import tails
from citeflow.platform.tails import Tails


def test_lines_are_read_on_from_where_they_were_left(tmp_path):
    path, found = tmp_path / "log", Tails()
    assert found.lines(path, 0) == []
    path.write_text("one\ntwo\nthr")
    assert found.lines(path, 0) == ["one", "two"]
    path.write_text("one\ntwo\nthree\n")
    assert found.lines(path, 2) == ["three"]
    assert found.lines(path, 1) == ["two", "three"]


def test_line_without_an_end_is_cut_and_hides_nothing_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tails, "LOOK_BYTES", 8)
    path, found, read = tmp_path / "log", Tails(), []
    path.write_text("x" * 20 + "\nend\n")
    for _ in range(4):
        read += found.lines(path, len(read))
    assert read == ["x" * 8, "x" * 8, "xxxx", "end"]
