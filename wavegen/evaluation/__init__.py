"""Scores, pictures and baselines of generated sound."""
