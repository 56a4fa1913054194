"""The listening page, its blind tests, and their results. Knows audio and pictures, not vocoders."""
