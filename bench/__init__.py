"""What the pipeline does in a second, takes in memory and leaves on the disk, measured on this machine.

Belongs here: preparing loads, timing the product's own code, the same jobs in plain DuckDB beside it, tables. Does not
belong here: tests (nothing here fails because a machine is slow) or anything that the product needs.
"""
