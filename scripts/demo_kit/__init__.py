"""What `scripts/demo` runs: an agent, a stack of its own, an outside recorder, and a story told from what they say."""
