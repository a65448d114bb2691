"""Servers and processes beside the worker: Redis, exports, health."""
