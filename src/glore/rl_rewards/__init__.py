"""Reward models as the rewards of RL trainers: TRL's reward functions, verl's reward manager."""
