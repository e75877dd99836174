"""The ledger's rules, pure: facts in `facts`, plan in `plan`, the engine in `engine`, the state in `books`, and deciding in the rest."""
