"""The compiled engine again for searches: makespans only, without graphs. Loading any of these modules loads numba.

They run the same operations in the same order as `simulator.engines`, so that both agree to the bit.
"""
