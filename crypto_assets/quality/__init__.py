"""Rules, asset checks, freshness, and the independent audit of lake and log."""
