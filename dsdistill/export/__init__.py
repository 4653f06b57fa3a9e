"""Exports of a distilled set: formats of other programs, and pictures."""
