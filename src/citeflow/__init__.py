"""citeflow finds the citations that are missing from a citation network."""

__version__ = "0.1.0"
