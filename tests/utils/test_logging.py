import logging.config
import re
import subprocess
import sys

import pytest

from citeflow.utils.logging import LOG_LINE, log, redact_url

LINE = r"\d\d:\d\d:\d\d train\[rank 1\] step 5% loss=0.31 papers=12,345 is_last=True path=/a b\n"


def test_log_writes_one_line_to_the_current_stderr(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "here")
    log("train", "step 5%", loss=0.310001, papers=12345, is_last=True, path="/a b")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(LINE, err)
    assert LOG_LINE.match(err)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")  # an image may set RANK
    log("train", "done")
    err = capsys.readouterr().err
    assert re.fullmatch(r"\d\d:\d\d:\d\d train done\n", err)
    assert LOG_LINE.match(err)


def test_log_survives_the_logging_settings_of_a_library(capsys):
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    log("tuning", "done")
    assert capsys.readouterr().err.endswith("tuning done\n")


def test_log_is_flushed_before_a_hard_exit():
    code = "import os; from citeflow.utils.logging import log; log('train', 'x'); os._exit(9)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stderr.endswith("train x\n")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:hush@host:1/a?b#c", "https://host:1/a"),
        ("https://[hush/a", "a malformed URL"),
        ("/data/a folder #2?", "/data/a folder #2?"),
        *((url, url) for url in ("synthetic", "sqlite:////a/b.db", "file:///a/b", "http://h:80/x")),
    ],
)
def test_redact_url_removes_secrets_only(url, shown):
    assert redact_url(url) == shown
