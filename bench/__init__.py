"""Benchmarks of Coral; run them with `make bench`."""
