"""Calls to Discord: pace, retries, errors, files."""
