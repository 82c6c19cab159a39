"""Where a reward model reads its step scores: separators and step tokens, for training, scoring and
serving alike.
"""
