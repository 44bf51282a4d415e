"""Independent audit of log and lake: `crypto-assets verify`."""
