"""The client of another machine's HTTP API: `trainer.Client` for notebooks, and the server of `mt` with MT_URL."""
