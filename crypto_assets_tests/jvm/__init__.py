"""Tests of `crypto_assets.jvm`."""
