"""Runs in forms that others read, and archives that restore them elsewhere."""
