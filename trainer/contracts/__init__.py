"""The common language of bot and trainer: requests, records, events, errors, settings; no torch, no discord."""
