"""The numba engine of vocoders with a source stage: mel to sound in tiles that fit the cache of a CPU core."""
