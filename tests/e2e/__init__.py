"""An installation on a cluster, tried from end to end; docs/e2e.md says how."""
