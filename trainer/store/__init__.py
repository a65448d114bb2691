"""The Redis client: queue, leases, event stream and short-lived answers."""
