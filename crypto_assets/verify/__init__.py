"""The audit of log and lake by separate code: `crypto-assets verify`."""
