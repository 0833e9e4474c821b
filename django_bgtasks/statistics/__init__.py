"""
What ran, when, for how long, and what failed of what cause.

tally.py counts in a child, ledger.py writes for a worker, merging.py keeps the
tables small, reading.py and histograms.py make the figures that people see.
"""
