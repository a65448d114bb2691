"""schemathesis over the HTTP API."""
