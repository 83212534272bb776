"""The published models: how each is trained, and what came of it."""
