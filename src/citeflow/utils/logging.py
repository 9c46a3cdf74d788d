"""What a person reads while it works: one line per event on stderr; stdout stays free for data."""

import json
import os
import sys
import time
from urllib.parse import urlsplit


def log(verb: str, event: str, **facts: object) -> None:
    """Print one line, `12:00:05 train[0] step loss=0.31 mrr=0.52`, the rank in brackets where there is one."""
    rank = os.environ.get("RANK")
    who = f"{verb}[{rank}]" if rank is not None else verb
    pairs = "".join(f" {name}={_short(value)}" for name, value in facts.items())
    print(f"{time.strftime('%H:%M:%S')} {who} {event}{pairs}", file=sys.stderr, flush=True)


def redact_url(url: str) -> str:
    """The URL as it may be shown and stored: without user, password, query and fragment; any other text as it is."""
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def emit(value: object) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value), flush=True)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
