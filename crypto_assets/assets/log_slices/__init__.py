"""Slices of a log as rows of Bronze: reading, continuity with stored rows, adoption, coverage."""
