"""Training jobs on Kubernetes: render, launch, follow, clean up."""
