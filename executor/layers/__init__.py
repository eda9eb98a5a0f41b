"""Layers of a model as one device of a plan computes them: forward, backward and their collectives."""
