"""Hydra's plugins of ltr; Hydra looks for plugins in the package ``hydra_plugins``."""
