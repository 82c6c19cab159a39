"""Reward models of every layout: opened as scorers, written for other libraries, given to trainers
as reward functions.
"""
