"""Optimisers, parameter groups and schedules; nothing here knows a method."""
