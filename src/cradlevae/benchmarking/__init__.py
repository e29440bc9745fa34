"""Benchmarks: a plan, its jobs, each computed once in any number of processes, and the tables of their scores."""
