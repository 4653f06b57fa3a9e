"""Labelling: teachers answer to the images of a distilled set, or to augmented views of them."""
