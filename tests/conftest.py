"""Fixtures that tests of several parts use."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The folder that holds src, components and pipelines."""
    return Path(__file__).resolve().parents[1]
