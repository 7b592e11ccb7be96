"""Aggregators: coefficients of the update from the Gramian and the task weights, one method a file."""
