"""Readers of annotation files of other tools."""
