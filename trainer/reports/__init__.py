"""Charts, score tables and pages."""
