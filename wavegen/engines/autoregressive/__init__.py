"""The numba engine, which compiles the sample loop of an autoregressive vocoder."""
