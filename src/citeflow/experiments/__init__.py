"""Experiments: scaling over workers, comparison of models, and tuning of settings."""
