"""CAME-Grad's dual and stages by independent routes."""
