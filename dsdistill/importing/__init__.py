"""Distilled sets that other programs made: from tensors, result folders and pictures to a set's file."""
