"""Proof that every plan trains the same: losses, gradient norms and weights of a plan against those of one process.

python -m towtank.executor.equality            # every case on this machine, in float64
"""
