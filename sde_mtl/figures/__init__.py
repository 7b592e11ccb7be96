"""Figures, one file a subject, in one style."""
