"""What tests share: signals, tiny corpora and vocoders, the laws, a browser."""
