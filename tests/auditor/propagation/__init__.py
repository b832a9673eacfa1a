"""Bounds on the float32 program, against executions of it."""
