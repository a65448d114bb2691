"""Batteries: reads files of items, judges scores, and writes results."""
