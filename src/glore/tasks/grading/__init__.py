"""What counts as right (method 8): `grade` decides, the other files read answers."""
