"""Files, logs, hardware and child processes."""
