from pathlib import Path

import pytest

from citeflow import paths
from citeflow.errors import ConfigError
from citeflow.paths import RunPaths


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a b", "a" * 64, "a\n"])
def test_check_name_refuses_what_names_no_pod(name):
    with pytest.raises(ConfigError, match="run name"):
        paths.check_name(name)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("synthetic", "synthetic-7"),
        ("/data/My Graph/", "my-graph-7"),
        ("https://example.org/a/cora.tar.gz#sha256=00ff", "cora-7"),
        ("https://me:hush@example.org/cora?token=hush/hush", "cora-7"),
        ("https://me:hush@example.org", "example-7"),
        ("https://[hush", "a-malformed-url-7"),
        ("ogbl-citation2", "ogbl-citation2-7"),
        ("/data/...", "7"),
        ("x" * 90, "x" * 61 + "-7"),
    ],
)
def test_make_name_takes_the_dataset_without_secrets(dataset, name):
    assert paths.make_name(dataset, "7") == name


@pytest.mark.parametrize("name", ["cora-7", "tune-7/trial-3"])
def test_run_paths_are_found_from_the_folder(name):
    run = RunPaths(Path("/data"), name)
    assert run.logs == Path("/data/logs") / name
    assert RunPaths.of_folder(Path("/data"), run.folder) == run
    assert run.is_trial == ("/" in name)


def test_run_paths_take_the_name_of_a_folder_elsewhere():
    assert RunPaths.of_folder(Path("/data"), Path("/tmp/result")).name == "result"
