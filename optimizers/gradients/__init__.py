"""Task gradients, their Gramian and their weighted sum."""
