"""The laws, one module per subject: invariants between tables, implemented a second time and differently.

Belongs here: queries of the rows that break a law, and what they need computed beforehand. Does not belong here:
reading Delta or Kafka (`verify.delta`, `verify.topic`), or any import from transforms, ml and steps.
"""
