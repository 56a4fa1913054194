"""The listening page, its blind tests, and their results; knows audio and pictures, but no vocoders."""
