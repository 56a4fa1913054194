"""Corpora: lists of recordings, extraction of their mels, and alignment of predicted mels for teacher forcing."""
