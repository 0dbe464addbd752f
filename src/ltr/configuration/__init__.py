"""From configs and a command line to a checked configuration; nothing heavier than Hydra is imported here."""
