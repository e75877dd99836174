"""Commands about money: plans, orders and what follows them, payouts, and every way to look at the books; a file for each noun.

Amounts are typed and shown as people write them (26.90); JSON has minor units (2690), as the contract.
"""

import typer

from services.ledger.cli import books, happenings, money, orders, plans, sealing, statement
from services.ledger.cli.orders import release_due

app = typer.Typer()
for part in (plans, orders, happenings, money, books, statement, sealing):
    app.add_typer(part.app)

__all__ = ["app", "release_due"]
