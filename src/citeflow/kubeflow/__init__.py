"""Kubeflow Pipelines: compile, run here, submit, follow."""
