"""Differentiable augmentation: what is drawn (`dsa.Parameters`) kept apart from how it is applied."""
