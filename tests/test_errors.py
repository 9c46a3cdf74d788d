import errno
import re

import pytest

from citeflow import errors
from citeflow.errors import CiteflowError, error_from_dict, error_to_dict

KINDS = [CiteflowError, *CiteflowError.__subclasses__()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_from_its_record_whole(kind):
    told = kind("bad row", "papers.csv:3", hint="mend it")
    back = error_from_dict(error_to_dict(told))
    assert type(back) is kind
    assert (back.what, back.value, back.hint) == ("bad row", "papers.csv:3", "mend it")
    assert (str(back), back.exit_code) == (str(told), kind.exit_code)


def test_the_table_of_exit_codes_is_that_of_the_classes():
    documented = {
        name: int(code)
        for name, code in re.findall(r"^\W*(\w+Error) +(\d+)  ", errors.__doc__, re.M)
    }
    assert documented == {kind.__name__: kind.exit_code for kind in KINDS}


def test_the_guide_has_the_table_of_exit_codes(checkout):
    guide = (checkout / "docs" / "guide.md").read_text()
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (yes|no) \|$", guide, re.M)
    tried_again = {int(code): again == "yes" for code, again in rows}
    codes = {kind.exit_code for kind in KINDS} | errors.WORTH_ANOTHER_ATTEMPT.keys()
    assert tried_again == {code: errors.may_pass(code) for code in codes}


def test_a_server_that_is_away_is_told_from_a_full_disk():
    stale, full = (OSError(number, "text", "/mnt") for number in (errno.ESTALE, errno.ENOSPC))
    assert [errors.to_user_error(each).exit_code for each in (stale, full)] == [69, 70]


def test_no_two_kinds_of_error_share_an_exit_code():
    assert len({kind.exit_code for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CiteflowError("lost"), "error: lost"),
        (CiteflowError("lost", "a.csv"), "error: lost: a.csv"),
        (CiteflowError("lost", 0), "error: lost: 0"),
        (CiteflowError("lost", "a.csv", hint="look again"), "error: lost: a.csv\nhint: look again"),
        (CiteflowError("lost", hint="look again"), "error: lost\nhint: look again"),
    ],
)
def test_an_error_is_one_line_and_a_hint(error, text):
    assert str(error) == text


@pytest.mark.parametrize("record", [{}, {"kind": "SomeError", "what": "lost"}, {"kind": "str"}])
def test_a_record_of_an_unknown_kind_is_still_an_error(record):
    assert type(error_from_dict(record)) is CiteflowError
