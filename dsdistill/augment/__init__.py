"""Differentiable augmentation: draw parameters (`dsa.Parameters`, `mix.Mix`) once, apply them to a batch."""
