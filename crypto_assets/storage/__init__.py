"""Tables on Delta Lake behind the `DeltaStore` protocol, and their housekeeping."""
