"""A small code location whose steps are launched in tests; what they do is asked for by `toy.plan` in their inputs."""
