"""Every fault of a citation folder ends in one line that names the file, the row and the value."""

import re

import pytest
from bad_folders import CASES, Case, write_good_folder

from citeflow.config import DataConfig
from citeflow.data.citation_folder import read_folder
from citeflow.errors import CiteflowError


def test_the_folder_that_the_cases_start_from_is_fine(tmp_path):
    write_good_folder(tmp_path / "good")

    graph = read_folder(tmp_path / "good", DataConfig())

    assert len(graph.id_N) == 8
    assert graph.edge_2E.shape == (2, 13)


def test_no_two_cases_have_the_same_name():
    assert len({case.name for case in CASES}) == len(CASES) >= 28


@pytest.mark.fault("F27")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_folder_is_refused_in_one_line(tmp_path, capsys, case: Case, figure):
    folder = tmp_path / "folder"
    case.build(folder)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CiteflowError) as caught:
        read_folder(folder, DataConfig())

    message = str(caught.value)
    assert caught.value.exit_code == case.exit_code, message
    assert re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", message), message
    assert str(folder) in message
    for fragment in case.fragments:
        assert fragment in message
    assert capsys.readouterr() == ("", "")
    assert sorted(tmp_path.rglob("*")) == before
    figure(bad_inputs=1, told_with_file_and_place=1)
