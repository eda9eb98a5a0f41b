"""Engines that put a task graph on a time axis, and bounds below what they answer.

`compiled.evaluate` is what predictions and searches call, `simpy_engine.simulate` is the reference it is
tested against, `bounds` prunes before either of them, and `structure.build_structure` makes the graphs.
"""
