"""Deployment files as text: bundle, Terraform, compose. Pure functions of contracts and settings.

`python -m crypto_assets.databricks.deploy [--check] [ROOT]` writes (or checks) them in a checkout. Does not belong
here: SQL (`databricks.deploy.unity`), and anything that talks to a workspace or to Docker.
"""
