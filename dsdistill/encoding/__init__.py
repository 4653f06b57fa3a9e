"""Encoding: a set in fewer bits, within a budget of bytes."""
