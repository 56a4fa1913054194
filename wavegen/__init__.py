"""WaveNet-style audio synthesis: dilated-convolution blocks, vocoders and recipes."""
