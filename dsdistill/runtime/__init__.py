"""The machine that a run uses: device, compiler, checkpoints, signals, provenance."""
