import tomllib

import pytest

from citeflow.doctor import Finding, local, machine, show
from citeflow.kubernetes.launchers import LAUNCHERS


def found(data_root, **options):
    return {finding.what: finding for finding in machine.check(data_root, **options)}


@pytest.mark.parametrize(("trains_here", "expected"), [(True, "missing"), (False, "warning")])
def test_check_is_stricter_where_training_is_done(tmp_path, monkeypatch, trains_here, expected):
    monkeypatch.setitem(machine.EXTRAS, "train", ("torch", "no-such-package"))
    (tmp_path / "file").touch()
    findings = found(tmp_path / "file" / "below", trains_here=trains_here)
    assert findings["data root"].status == expected
    packages = findings["packages [train]"]
    assert (packages.status, packages.value) == (expected, "not installed: no-such-package")
    assert findings["packages [kfp]"].status == "ok"


def test_extras_are_those_of_the_project(checkout):
    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    for extra, names in machine.EXTRAS.items():
        packages = project["optional-dependencies"][extra]
        assert [text.split(">")[0].split("=")[0] for text in packages] == list(names)


def test_local_notes_name_every_launcher():
    notes = {finding.what: finding.value for finding in local.check()}
    assert {"a local run ignores claims", "a local run ignores retries"} <= set(notes)
    assert all(name in notes["a local run ignores launcher"] for name in LAUNCHERS)


def test_show_prints_a_line_and_a_hint(capsys):
    show(Finding(status="missing", what="claim", value="not there", hint="make one"))
    assert capsys.readouterr().out == "missing  claim: not there\n         hint: make one\n"
