"""The conflict-averse dual: batched in torch on any device, and compiled on a CPU."""
