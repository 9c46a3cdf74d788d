"""Datasets: named ones, citation folders and archives, downloaded, stored and read."""
