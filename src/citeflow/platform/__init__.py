"""The platform: a page and an API on which people train, compare and try models."""
