"""Answers over HTTP: the ServingIndex, and the server that reads it."""
