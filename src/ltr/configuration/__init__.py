"""Composition and checks of configurations; modules in this package import nothing heavier than Hydra."""
