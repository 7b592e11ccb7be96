"""Compact report generators and their tasks."""
