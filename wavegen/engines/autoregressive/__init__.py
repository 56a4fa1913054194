"""The compiled engine of an autoregressive vocoder (numba)."""
