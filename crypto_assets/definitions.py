"""Dagster's entry point: definitions built from the settings in the environment and the home they select."""

from __future__ import annotations

from crypto_assets.collector import collector_paused

# What a start imports and builds stays: the collector would walk it again and again, for a quarter of the start.
with collector_paused(lasting=True):
    from crypto_assets.home import in_force
    from crypto_assets.settings import load_settings
    from crypto_assets.wiring import build_definitions

    defs = build_definitions(in_force(load_settings()))

__all__ = ["build_definitions", "defs"]
