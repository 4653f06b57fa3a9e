"""Evaluation of a distilled set: fresh students under a fixed protocol, and baselines of real images.

It reads a set and real data, and knows nothing of how the set was distilled.
"""
