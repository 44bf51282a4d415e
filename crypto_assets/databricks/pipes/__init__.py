"""Pipes: the work of a step alone, on serverless compute."""
