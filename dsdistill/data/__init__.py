"""Real data: names and paths in, :class:`RealDataset` and :class:`Task` out."""
