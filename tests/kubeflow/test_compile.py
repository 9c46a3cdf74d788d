import shutil

import pytest

from citeflow.cli import main
from citeflow.kubeflow import compile


@pytest.fixture
def copy(checkout, tmp_path):
    """A copy of the pipelines and components that a test may change."""
    for folder in ("components", "pipelines"):
        shutil.copytree(
            checkout / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


def test_the_committed_files_are_what_the_sources_compile_to(checkout):
    assert compile.stale(checkout) == []


def test_a_compilation_gives_the_same_bytes_each_time(copy):
    targets = [source.with_suffix(".yaml") for source in compile.sources(copy)]
    before = [target.read_bytes() for target in targets]
    for target in targets:
        target.unlink()
    assert sorted(compile.write(copy)) == sorted(targets)
    assert [target.read_bytes() for target in targets] == before
    assert compile.write(copy) == []


def test_a_compiled_file_says_in_its_first_line_what_it_was_made_from(checkout):
    for source in compile.sources(checkout):
        first = source.with_suffix(".yaml").read_text().partition("\n")[0]
        assert source.relative_to(checkout).as_posix() in first
        assert "Generated" in first


def test_a_changed_source_makes_the_files_that_hold_it_stale(copy, capsys):
    source = copy / "components" / "publish" / "component.py"
    source.write_text(source.read_text().replace("where people look.", "where everybody looks."))
    assert main(["compile", "--check", "--root", str(copy)]) == 65
    told = capsys.readouterr().err
    assert "components/publish/component.yaml" in told
    assert "pipelines/citation/pipeline.yaml" in told
    assert "components/train/component.yaml" not in told
    assert main(["compile", "--root", str(copy)]) == 0
    assert main(["compile", "--check", "--root", str(copy)]) == 0


def test_a_compiled_file_without_a_source_is_stale(copy):
    shutil.copytree(copy / "components" / "train", copy / "components" / "gone")
    (copy / "components" / "gone" / "component.py").unlink()
    assert compile.stale(copy) == [copy / "components" / "gone" / "component.yaml"]


def test_another_patch_release_of_kfp_leaves_the_files_alone(copy):
    target = copy / "components" / "train" / "component.yaml"
    older = target.read_text().replace("sdkVersion: kfp-2.17.", "sdkVersion: kfp-2.17.9")
    target.write_text(older)
    assert compile.write(copy) == []
    assert target.read_text() == older
