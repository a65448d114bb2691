"""The job queue and the inference client, with the services behind them."""
