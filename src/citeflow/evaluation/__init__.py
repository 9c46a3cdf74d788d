"""Metrics, inference over the whole graph, calibration and prediction."""
