"""Suites: data sets × methods × images per class × seeds, each cell distilled, evaluated and collected."""
