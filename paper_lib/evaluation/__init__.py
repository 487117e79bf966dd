"""Scores, intervals, neighbours, the paper's numbers and what becomes of its claims."""
