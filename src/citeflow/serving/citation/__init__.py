"""The citation task, served: the papers that a paper lacks."""
