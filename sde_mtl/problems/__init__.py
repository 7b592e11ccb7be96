"""Objectives with known laws, and their gradient noise."""
