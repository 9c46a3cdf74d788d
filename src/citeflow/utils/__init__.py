"""Logging, processes and the machine: what every layer needs and no field is about."""
