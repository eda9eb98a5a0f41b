"""Optuna studies: spaces that cannot be enumerated, on as many workers as wanted. Only this folder imports optuna."""
