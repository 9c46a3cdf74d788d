"""Training on Kubernetes: what is sent there, how it is followed, and how it is cleaned up."""
