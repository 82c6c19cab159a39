"""Procedural problems of the package reasoning-gym."""
