"""Signed webhooks for events of runs: sent until they are confirmed, in order, and never again after that."""
