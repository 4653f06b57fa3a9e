"""Synthetic images: learnable while they are distilled, finished as they are stored."""
