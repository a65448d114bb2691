"""Settings, presets and experiment files: what people write down becomes requests."""
