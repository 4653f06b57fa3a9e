"""Faults on purpose: kills, failing writes and damaged files; what remains is right or is refused."""
