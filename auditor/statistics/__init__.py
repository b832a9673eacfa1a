"""Intervals, tests and their error budgets."""
