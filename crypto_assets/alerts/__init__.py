"""Alerts: routing, the sensor, delivery."""
