"""Tables on Delta Lake behind the `TableStore` protocol, and their housekeeping."""
