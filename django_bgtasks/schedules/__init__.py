"""Schedules: what they say, where they come from, when they fire, how they fare."""
