"""Deployment files that follow contracts and settings: bundle and SQL. Terraform and compose are written by hand.

`python -m crypto_assets.rendered_files [--check] [ROOT]` writes (or checks) them in a checkout. Does not belong
here: SQL (`databricks.deploy.unity`), and anything that talks to a workspace or to Docker.
"""
