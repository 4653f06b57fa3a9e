"""The machine under a run: device, compiler, checkpoints, signals, provenance."""
