"""Gradient logs of training runs: reading, measuring, judging."""
