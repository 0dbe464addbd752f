"""Readers of annotation files that other tools write."""
