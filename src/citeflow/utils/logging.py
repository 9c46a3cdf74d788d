"""Log lines on stderr, for people, and JSON on stdout, for programs."""

import json
import logging
import os
import re
import sys
from urllib.parse import urlsplit

LOG_LINE = re.compile(r"\d\d:\d\d:\d\d [a-z]+(\[rank \d+\])? ")
"""Begin of each line that `log` writes, for those who pick them from among others."""


class _StderrHandler(logging.Handler):
    """Writes to the current sys.stderr, which tests and launchers replace after the import."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # Flushed, so that a process that is killed has written what it logged.
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def _make_logger() -> logging.Logger:
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(stage)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("citeflow")
    logger.setLevel(logging.INFO)
    logger.propagate = False  # kfp has a handler on the root logger: each line would come twice
    logger.handlers = [handler]
    return logger


_logger = _make_logger()


def log(stage: str, event: str, **facts: object) -> None:
    """Log one line, `12:00:05 train[rank 0] step loss=0.31 mrr=0.52`; in brackets a worker's rank.

    It is the rank in the process group: torch numbers pods by their addresses, not their names.
    """
    # An image or an operator may set RANK alone; torchrun names its run as well.
    rank = os.environ.get("RANK") if "TORCHELASTIC_RUN_ID" in os.environ else None
    name = stage if rank is None else f"{stage}[rank {rank}]"
    pairs = "".join(f" {name}={_format(value)}" for name, value in facts.items())
    # logging.config.fileConfig, as Alembic calls it, disables all loggers that it does not know.
    _logger.disabled = False
    _logger.info("%s%s", event, pairs, extra={"stage": name})


def emit(value: object) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value), flush=True)


def printable(text: str) -> str:
    """Return text without characters that a terminal would obey, such as those of escape codes."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def redact_url(url: str) -> str:
    """Return a URL without user, password, query and fragment; any other text as it is."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _format(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
