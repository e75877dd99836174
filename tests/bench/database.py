"""PostgreSQL without Fenrun, with the same closed loop: what one commit costs, and how fast orders could be recorded if nothing but the
database had to work. The limit is one set-based call for 200 orders with everything prepared: an event and four entries each, balances and
versions of accounts, what does not add up or has no account refused, a repeated order skipped; no gRPC, no hash, no decision."""

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString, NamedTuple

import psycopg
from google.protobuf.json_format import MessageToJson

from tests.bench.load import Case, Measured, Where, Window, repeat_here
from tests.bench.shop import MEMBERS, TREE, Lost, Orders, member_number, referrers

# Orders made before the clock starts and told again and again, each time with a new id.
MADE = 4000
HISTORY = 20_000
COMPANY = 0
COMMITS: LiteralString = (
    "create schema if not exists bench; create table if not exists bench.commits (number bigint primary key, told text not null)"
)
SCHEMA: LiteralString = """
create schema bare;
create table bare.events (
  position bigint generated always as identity primary key,
  order_id uuid not null unique,
  told jsonb not null,
  recorded_at timestamptz not null default now()
);
create table bare.accounts (
  account bigint primary key,
  balance bigint not null default 0,
  version bigint not null default 0
) with (fillfactor = 50);
create table bare.entries (
  account bigint not null,
  version bigint not null,
  position bigint not null,
  amount bigint not null,
  balance bigint not null,
  primary key (account, version)
);

-- Posting number i is of the order at of_order[i]. One writer at a time: no row is waited for.
create function bare.record(order_ids uuid[], told jsonb[], of_order int[], accounts bigint[], amounts bigint[]) returns bigint
language plpgsql as $$
declare
  recorded bigint;
  homeless bigint;
  askew bigint;
begin
  perform pg_advisory_xact_lock(hashtext('bare.record'));
  with fresh as (
    insert into bare.events (order_id, told)
    select new.order_id, new.told from unnest(order_ids, told) with ordinality as new (order_id, told, number) order by new.number
    on conflict (order_id) do nothing
    returning position, order_id
  ), posting as (
    select fresh.position, given.account, given.amount, given.number
      from unnest(of_order, accounts, amounts) with ordinality as given (of_order, account, amount, number)
      join fresh on fresh.order_id = order_ids[given.of_order]
  ), moved as (
    select account, sum(amount)::bigint as amount, count(*) as postings from posting group by account
  ), before as (
    update bare.accounts as held set balance = held.balance + moved.amount, version = held.version + moved.postings
      from moved where held.account = moved.account
    returning held.account, held.balance - moved.amount as balance, held.version - moved.postings as version
  ), entered as (
    insert into bare.entries (account, version, position, amount, balance)
    select posting.account, before.version + row_number() over one, posting.position, posting.amount,
           before.balance + sum(posting.amount) over one
      from posting join before on before.account = posting.account
    window one as (partition by posting.account order by posting.number)
    returning 1
  )
  select (select count(*) from fresh),
         (select count(*) from posting) - (select count(*) from entered),
         (select count(*) from (select from posting group by position having sum(amount) <> 0) as each)
    into recorded, homeless, askew;
  if homeless > 0 then
    raise exception '% postings have no account', homeless;
  end if;
  if askew > 0 then
    raise exception '% orders do not add up', askew;
  end if;
  return recorded;
end $$;
"""
RECORD: LiteralString = "select bare.record(%s::uuid[], %s::jsonb[], %s::int[], %s::bigint[], %s::bigint[])"


class Made(NamedTuple):
    """An order as text: its document, its accounts, and what each gets."""

    document: str
    accounts: Sequence[int]
    amounts: Sequence[int]


def made(count: int) -> Iterator[Made]:
    """Orders as those that Fenrun is told, decided: the buyer, the one above, the one above that, and the company, which gives."""
    orders = Orders("made")
    for order in orders.some(TREE.program, count):
        base = order.lines[0].base_minor
        amounts = (base * 3 // 100, base * 10 // 100, base * 5 // 100)
        payees = [order.member_id, *referrers(order.member_id, 2)]
        document = MessageToJson(order, indent=None, preserving_proto_field_name=True)
        yield Made(document, [*(1 + member_number(payee) for payee in payees), COMPANY], [*amounts, -sum(amounts)])


def run_threads(window: Window, items: int, calls: Sequence[Callable[[], object]]) -> None:
    """Each of the calls again and again, in a thread of its own, until the window is over."""
    with ThreadPoolExecutor(len(calls)) as callers:
        running = [callers.submit(repeat_here, window, items, call) for call in calls]
        asyncio.run(window.watch())
        for one in running:
            one.result()


def commits(_: Case, where: Where, __: str, warm_s: float, measure_s: float) -> Measured:
    """One row a transaction, one connection: what PostgreSQL and the disk need for the least that lasts."""
    window = Window(where, warm_s, measure_s)
    with psycopg.connect(where.dsn, autocommit=True) as connection:
        connection.execute(COMMITS)
        connection.execute("truncate bench.commits")
        numbers = itertools.count(1)

        def call() -> None:
            connection.execute("insert into bench.commits values (%s, %s)", [next(numbers), "x" * 100])

        run_threads(window, 1, [call])
        kept = connection.execute("select count(*) from bench.commits").fetchone()
        assert kept == (next(numbers) - 1,)
        connection.execute("drop schema bench cascade")
    return window.measured()


def prepare(owner: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The tables of the limit, with some history: plans that were made for empty tables would be slow ones."""
    owner.execute(SCHEMA)
    owner.execute("insert into bare.accounts (account) select generate_series(0, %s)", [MEMBERS])
    owner.execute("analyze bare.accounts")
    call, batch = _caller(owner, 1000), 1000
    for _ in range(HISTORY // batch):
        call()
    owner.execute("vacuum analyze bare.events, bare.accounts, bare.entries")


def bare(case: Case, where: Where, _: str, warm_s: float, measure_s: float) -> Measured:
    """The limit, on one connection. Raises Lost when the tables do not say what was told."""
    with psycopg.connect(where.dsn, autocommit=True) as connection:
        call = _caller(connection, case.batch)
        before, told = _counted(connection), itertools.count()

        def counted() -> None:
            call()
            next(told)

        window = Window(where, warm_s, measure_s)
        run_threads(window, case.batch, [counted])
        orders, after = next(told) * case.batch, _counted(connection)
        if after != (before[0] + orders, before[1] + 4 * orders, 0, 0):
            raise Lost(f"{orders} orders were recorded beside (events, entries, sum, accounts askew) {before}, found {after}")
    return window.measured()


def _caller(connection: psycopg.Connection[Any], batch: int) -> Callable[[], None]:
    """Records the next orders. Arrays go as text that is put together from pieces made before: no Python work, value by value."""
    pieces = [
        ('"' + one.document.replace('"', '\\"') + '"', ",".join(map(str, one.accounts)), ",".join(map(str, one.amounts)))
        for one in made(MADE)
    ]
    of_order = "{" + ",".join(f"{number},{number},{number},{number}" for number in range(1, batch + 1)) + "}"
    endless = itertools.cycle(pieces)

    def call() -> None:
        documents, accounts, amounts = zip(*itertools.islice(endless, batch), strict=True)
        order_ids = [os.urandom(16).hex() for _ in range(batch)]
        arrays = ["{" + ",".join(one) + "}" for one in (order_ids, documents, accounts, amounts)]
        found = connection.execute(RECORD, [*arrays[:2], of_order, *arrays[2:]], prepare=True).fetchone()
        assert found == (batch,)

    return call


def _counted(connection: psycopg.Connection[Any]) -> tuple[int, ...]:
    """(events, entries, sum of all balances, accounts whose newest entry is not their balance)."""
    row = connection.execute(
        "select (select count(*) from bare.events), (select count(*) from bare.entries), (select sum(balance) from bare.accounts),"
        " (select count(*) from bare.accounts a left join bare.entries e using (account, version)"
        " where a.version > 0 and e.balance is distinct from a.balance)"
    ).fetchone()
    assert row is not None
    return tuple(map(int, row))
