"""The training step around any torch optimizer."""
