"""Samples of usage with chosen figures."""

from citeflow.utils.usage import Usage


def usage(at, **fields):
    zeros = dict.fromkeys(Usage.__slots__, 0.0)
    return Usage(**{**zeros, "at": float(at), "cpu_s": float(at), **fields})
