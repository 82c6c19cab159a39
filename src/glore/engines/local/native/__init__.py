"""Attention and sampling on a CPU, compiled at first use."""
