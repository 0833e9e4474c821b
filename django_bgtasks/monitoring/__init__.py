"""What operators are shown of the whole: the same numbers on each page and in each command."""
