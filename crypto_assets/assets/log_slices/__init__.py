"""Slices of a log as rows of Bronze: reading, continuity with what is stored, adoption, coverage."""
