"""Tests of `auditor.attacks`."""
