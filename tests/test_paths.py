import pytest

from citeflow import paths
from citeflow.errors import ConfigError


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "..", "a b", "a" * 64, "a\n"])
def test_a_name_that_could_not_name_a_folder_and_a_pod_is_refused(name):
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
def test_a_run_is_named_after_its_dataset(dataset, name):
    assert paths.make_name(dataset, "7") == name
