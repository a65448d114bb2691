"""Campaigns of faults against the whole product, one module each; they share `driver`."""
