"""Suites: data sets × methods × images per class × seeds, each cell distilled, judged and collected."""
