"""Fixtures of trainings by two workers."""

from two_workers import jobs, stopped, two_ranks  # noqa: F401
