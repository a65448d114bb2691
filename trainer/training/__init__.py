"""The training loop, its batches, checkpoints and evaluation."""
