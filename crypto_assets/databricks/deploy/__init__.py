"""Deployment files that follow contracts: the SQL of Unity Catalog. Bundle, Terraform and compose are written by hand.

`python -m crypto_assets.rendered_files [--check] [ROOT]` writes (or checks) the SQL in a checkout. Does not belong
here: anything that talks to a workspace or to Docker.
"""
