"""What orders of several programs move is folded as if each had been appended by itself, also where some of them are not appended."""

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import psycopg
import pytest

from services.kernel.decider import Draft, Entry
from services.ledger.domain.facts import Account, Posting, TaskDone, TaskDoneDecision
from services.ledger.projection import LedgerChanges
from services.runtime import eventlog
from services.runtime.eventlog import Append, Head

# As the text of an array may misread them.
MEMBERS = ["ann", "NULL", 'q"uote', "back\\slash", "com,ma", "{brace}", " "]
ASSETS = ["GBP", "points", "null"]
VIEWS = ("balances", "balance_history", "company")


def moved(random: Random, members: Sequence[str]) -> list[Posting]:
    """Postings that sum to zero and move no account of a member twice."""
    found = []
    for asset in random.sample(ASSETS, random.randrange(1, 3)):
        amounts = {member: random.randrange(1, 1000) for member in random.sample(members, random.randrange(1, 4))}
        account = random.choice([Account.PENDING, Account.AVAILABLE])
        found += [Posting(account, member, amount, asset) for member, amount in amounts.items()]
        found.append(Posting(Account.COMMISSION, "", -sum(amounts.values()), asset))
    return found


def next_of(head: Head, postings: Sequence[Posting]) -> Append:
    decision = TaskDoneDecision(1, 0, (), (), (), tuple(postings), ())
    stored = eventlog.store(head, Draft(f"s/{head.position}", None, None, 0), 1, ("t", b"", b""), "", 1)
    changes = LedgerChanges()
    changes.add(Entry(stored.position, stored.stream, 1, 0, stored.recorded_us, stored.hash, TaskDone("t", "ann", "t"), decision))
    return Append(head, [stored], changes.folds())


@pytest.mark.usefixtures("channel")
def test_several_programs_fold_as_each_alone(dsn: str, fresh_program_id: Callable[[], str]) -> None:
    random = Random(5)
    alone, together = ([fresh_program_id() for _ in range(6)] for _ in range(2))

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for program_id in (*alone, *together):
                first = eventlog.store(eventlog.beginning(program_id, "GBP"), Draft("s/first", None, None, 0), 1, ("t", b"", b""), "", 1)
                await eventlog.create_program(connection, first, "GBP")
            for _ in range(30):
                asked = {number: moved(random, MEMBERS) for number in random.sample(range(6), random.randrange(2, 7))}
                gone = random.choice([*asked])
                appends = []
                for number, postings in asked.items():
                    head = await eventlog.head(connection, together[number])
                    # One of them is left as it is: its head is not where it is thought to be.
                    appends.append(next_of(head._replace(position=head.position + 1) if number == gone else head, postings))
                    if number != gone:
                        await eventlog.append(connection, *next_of(await eventlog.head(connection, alone[number]), postings))
                assert all(fold.together for one in appends for fold in one.folds)
                assert await eventlog.append_together(connection, appends) == {together[number] for number in asked if number != gone}
            for view in VIEWS:
                for one, other in zip(alone, together, strict=True):
                    rows = [await read(connection, view, program_id) for program_id in (one, other)]
                    assert rows[0] == rows[1]
                    assert rows[0]
            # Nothing at all is appended, and nothing folded.
            heads = [(await eventlog.head(connection, program_id))._replace(position=99) for program_id in together]
            before = await read(connection, "company", together[0])
            assert await eventlog.append_together(connection, [next_of(head, moved(random, MEMBERS)) for head in heads]) == set()
            assert await read(connection, "company", together[0]) == before

    asyncio.run(story())


async def read(connection: psycopg.AsyncConnection[tuple[object, ...]], view: str, program_id: str) -> list[tuple[object, ...]]:
    """A program's rows, without its name."""
    cursor = await connection.execute(f"select * from ledger.{view} where program_id = %s order by 1, 2, 3, 4".encode(), [program_id])
    return [row[1:] for row in await cursor.fetchall()]
