"""Tests of `auditor.statistics`."""
