"""Workshops in a row: experts where a method needs them, then the distillation."""
