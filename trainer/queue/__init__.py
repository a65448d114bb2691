"""Requests on their way to a worker: their checks, the queue, the index of runs."""
