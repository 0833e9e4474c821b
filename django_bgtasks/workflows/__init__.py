"""Workflows: built of elements, planned, written, watched."""
