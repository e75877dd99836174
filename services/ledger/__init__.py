"""The ledger service: plans, orders, what they earn, where the money stands."""
