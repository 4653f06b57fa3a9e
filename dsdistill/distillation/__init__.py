"""Distilling: a config, a loop over an engine, and the set it makes."""
