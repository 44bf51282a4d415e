"""Rules, asset checks, freshness, and the comparison of two lakes."""
