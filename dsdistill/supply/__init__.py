"""Where an engine's networks come from."""
