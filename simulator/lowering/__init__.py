"""Lowering: from a model, a plan and a stack to the operations of one training step."""
