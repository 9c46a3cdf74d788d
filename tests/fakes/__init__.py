"""Stand-ins for what citeflow talks to on a cluster."""
