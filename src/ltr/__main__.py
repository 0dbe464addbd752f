"""``python -m ltr``: the same as ``ltr-train``."""

from ltr.cli import train

if __name__ == "__main__":
    train()
