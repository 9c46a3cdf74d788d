"""Distributed training: trainer, process group, checkpoints and launch."""
