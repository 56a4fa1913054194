"""Evaluation of generated audio: metrics, baselines, pictures, and reports of whole sets of clips."""
