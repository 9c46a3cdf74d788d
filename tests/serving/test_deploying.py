import pytest

from citeflow import files
from citeflow.artifacts import SERVING_INDEX
from citeflow.errors import ConfigError
from citeflow.serving.deploying import deploy, service_folder


@pytest.fixture
def index(tmp_path):
    """Return a function that makes an index which differs by its number."""

    def make(number):
        with files.new_directory(tmp_path / f"run-{number}" / "index") as work:
            files.write_text(work / "ids.txt", str(number))
            files.write_manifest(work, SERVING_INDEX, inputs={}, facts={})
        return tmp_path / f"run-{number}" / "index"

    return make


@pytest.fixture
def folder(tmp_path):
    return service_folder(tmp_path, "papers")


def test_deploy_points_to_a_copy_that_outlives_its_run(index, folder):
    version = deploy(index(1), folder)
    files.delete_directory(folder.parents[1] / "run-1")
    served = files.verify((folder / "current").resolve(), SERVING_INDEX)
    assert version.name == served.sha256[:16]
    assert (folder / "current" / "ids.txt").read_text() == "1"


def test_deploy_keeps_the_index_before_and_removes_older_ones(index, folder):
    (folder / "notes").mkdir(parents=True)
    first, second, third, again = (deploy(index(number), folder) for number in (1, 2, 3, 3))
    assert third == again
    assert not first.exists()
    assert {second.name, third.name, "current", "notes"} <= set(files.names_in(folder))
    copied = (second / "ids.txt").stat().st_ino
    assert deploy(index(2), folder) == second, "back to the one before"
    assert (folder / "current" / "ids.txt").read_text() == "2"
    assert (second / "ids.txt").stat().st_ino == copied


@pytest.mark.parametrize("name", ["", "../runs", "A b", "a/b"])
def test_service_has_a_name_that_stays_below_the_data_root(name, tmp_path):
    with pytest.raises(ConfigError):
        service_folder(tmp_path, name)


def test_service_does_not_replace_a_folder_of_somebody(tmp_path):
    (tmp_path / "serving" / "papers" / "current").mkdir(parents=True)
    with pytest.raises(ConfigError, match="not the link"):
        service_folder(tmp_path, "papers")
