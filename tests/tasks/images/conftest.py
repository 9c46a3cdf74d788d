"""Scikit-learn's digits, prepared, and a classifier of them."""

from digit_runs import classified, digits  # noqa: F401
