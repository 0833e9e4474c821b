"""
runworker: a supervisor and its child processes.

Read child.py first: claim, run, finish. supervisor.py keeps what it does alive.
"""
