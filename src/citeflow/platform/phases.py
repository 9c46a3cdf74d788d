"""Phases of a run, as the server keeps them."""

QUEUED, STARTED, ENDED = "queued", "started", "ended"
