"""Toy steps, shipped to the stand-in in the wheel beside the product."""
