"""Every fault of a citation folder is one error that names the file, the row and the value."""

import re

import pytest
from bad_folders import CASES, write_good_folder

from citeflow.config import DataConfig
from citeflow.data.citation_folder import read_folder
from citeflow.errors import CiteflowError


def test_good_folder_of_the_cases_is_read(tmp_path):
    graph = read_folder(write_good_folder(tmp_path / "good"), DataConfig())
    assert len(graph.id_N) == 8
    assert graph.edge_2E.shape == (2, 13)


@pytest.mark.fault("F27")
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_folder_is_refused_in_one_line(tmp_path, capsys, case):
    folder = tmp_path / "folder"
    case.build(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CiteflowError) as caught:
        read_folder(folder, DataConfig())
    message = str(caught.value)
    assert caught.value.exit_code == case.exit_code, message
    assert re.fullmatch(r"error: [^\n]+(\nhint: [^\n]+)?", message), message
    assert str(folder) in message
    for words in case.words:
        assert words in message
    assert capsys.readouterr() == ("", "")
    assert sorted(tmp_path.rglob("*")) == before
