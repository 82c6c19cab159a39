"""A pool of engines on one or many machines."""
