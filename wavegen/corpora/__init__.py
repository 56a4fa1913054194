"""Corpora: lists of recordings, their extraction to features, and pairs for teacher-forced training."""
