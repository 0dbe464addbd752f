"""Optimisers, parameter groups and schedules, independent of the methods."""
