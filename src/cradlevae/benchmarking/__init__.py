"""Benchmarks: a plan, its cells computed once each in any number of processes, and the tables that come of them."""
