import pytest

from citeflow.utils.logging import redact_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hush@host:1/a?b#c", "https://host:1/a"),
        ("https://[hush/a", "a malformed URL"),
        ("/data/a folder #2?", "/data/a folder #2?"),
        ("synthetic", "synthetic"),
    ],
)
def test_a_url_is_shown_without_its_secrets_and_anything_else_as_it_is(url, shown):
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    "url", ["sqlite:///mlflow.db", "sqlite:////a/b.db", "file:///a/b", "http://host:80/x"]
)
def test_a_url_without_secrets_is_shown_as_it_is(url):
    assert redact_url(url) == url
