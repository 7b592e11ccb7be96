"""Training as a stochastic process, and the simulation of many of its paths."""
