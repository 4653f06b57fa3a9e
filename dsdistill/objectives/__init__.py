"""Objectives of the methods: pure functions of tensors, independent of loops, networks and data sets."""
