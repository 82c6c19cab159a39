"""What is measured against whom. `python -m benchmarks.sampling` prints the tables; LOG.md tells
what was tried.
"""
