"""
How far a task is, for the site's own users: no arguments, no errors, no tracebacks.

progress_of() says it, progress_url() gives the address of a view that says it
as JSON, to whom permission() lets see it; {% task_progress %} shows it.
"""

from .answers import aprogress_of, progress_of
from .links import progress_url

__all__ = ["aprogress_of", "progress_of", "progress_url"]
