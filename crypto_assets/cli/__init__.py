"""The `crypto-assets` command."""
