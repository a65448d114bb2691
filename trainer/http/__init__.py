"""The HTTP API: one table of operations gives routes, validation and the OpenAPI description."""
