"""The prepared graph: sparse adjacency, locality order and split."""
