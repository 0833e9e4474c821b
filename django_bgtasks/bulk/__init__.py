"""
One act on all tasks that match a filter.

selection.py reads the filter, estimating.py tells how many it means, asking.py
writes down what was asked for, running.py does it, a batch at a time, within
the maintenance of the workers.
"""
