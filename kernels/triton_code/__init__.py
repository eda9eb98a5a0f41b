"""Device code of the Triton backends; imported only when launched."""
