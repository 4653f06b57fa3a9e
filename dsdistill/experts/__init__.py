"""Training experts: networks trained on real data, whose weights are stored after some of their epochs."""
