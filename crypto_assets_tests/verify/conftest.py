"""The home that the tests of the audit break, made once a session."""

from crypto_assets_tests.verify.full_home import full_home

__all__ = ["full_home"]
