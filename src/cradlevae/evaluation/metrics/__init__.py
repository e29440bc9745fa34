"""Metrics: registered functions of one signature per kind."""
