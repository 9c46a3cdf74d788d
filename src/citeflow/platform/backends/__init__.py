"""Where the runs of the platform take place."""
