"""Counts of n-grams and their smoothing, without torch."""
