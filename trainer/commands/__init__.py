"""The commands of `mt`, one module per concern; each adds its own to the command line and does what they say."""
