"""Judging a distilled set: fresh students, a fixed protocol, baselines beside it. Knows no engine."""
