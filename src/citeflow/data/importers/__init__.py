"""Importers: what citeflow reads besides its own citation folder and OGB's layout."""
