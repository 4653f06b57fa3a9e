"""A distilled set as other programs read it, or as a picture."""
