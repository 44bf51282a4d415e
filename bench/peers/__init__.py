"""The same records through other systems, each in its own environment: jobs as their users would write them.

A job (`*_job.py`) imports its system, the standard library, psutil and `bench.peers.job`; never the product.
"""
