"""Running on Databricks: step launcher, Pipes, declarative pipeline, deployment files."""
