"""Folders of runs and tokenizers: records, event logs, checkpoints."""
