"""citeflow finds the citations that are missing from a citation network."""

import os
import warnings

__version__ = "0.1.0"

if "error" in os.environ.get("PYTHONWARNINGS", ""):
    # Errors of the warnings that torch_geometric gives on each import would end a step.
    warnings.simplefilter("default")
