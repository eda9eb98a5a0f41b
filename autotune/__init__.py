"""Which plan: the space of legal plans, exact search, studies with Optuna, reasons, scaling, export."""
