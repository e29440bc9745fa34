"""Scores that can be believed: metrics, floors, ceilings and the leak-proof harness."""
