"""Matrices packed for compiled code, in float32, int16 or int8, and their products with a few vectors."""
