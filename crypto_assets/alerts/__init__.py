"""Alerts: what one is made of, the sensor, delivery."""
