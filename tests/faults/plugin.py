"""The marker `fault("F29")`, which says to which row of docs/faults.md a test belongs, and the
choice of slow tests.

Slow tests carry `nightly=True` besides, and run where `-m` asks for faults, as `make faults` does.
"""

import pytest


def pytest_configure(config):
    # That of pytest-xdist, for those who run tests without it, as Cloud Build does.
    config.addinivalue_line("markers", "xdist_group(name): tests for one process")
    config.addinivalue_line(
        "markers", "fault(row, nightly=False): the test belongs to a row of docs/faults.md"
    )


def pytest_collection_modifyitems(config, items):
    if "fault" in config.option.markexpr:
        return
    for item in items:
        if any(mark.kwargs.get("nightly") for mark in item.iter_markers("fault")):
            item.add_marker(pytest.mark.skip(reason="slow; `make faults` runs it"))
