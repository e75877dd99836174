"""What is measured, by key, and whose rates are set against each other."""

from tests.bench import shop
from tests.bench.load import Case

UNARY = {number: Case(f"unary-{number}", f"RecordOrder, {number} in flight", "unary", number) for number in (1, 4, 16, 64, 256)}
BATCH = Case("batch", "RecordOrders of 500, 4 in flight", "batch", 4, 500)
BATCH_200 = Case("batch-200", "RecordOrders of 200, 8 in flight", "batch", 8, 200)
STREAM_1 = Case("stream-1", "StreamOrders of 200, 1 stream", "stream", 1, 200)
STREAM_4 = Case("stream-4", "StreamOrders of 200, 4 streams", "stream", 4, 200)
TWO_SERVERS = Case("two-servers", "RecordOrder, 64 in flight, to two servers by turns", "unary", 64, servers=2)
PROGRAMS = Case("programs", "RecordOrder, 64 in flight, to 1,000 programs by chance", "unary", 64, 1, shop.SMALL)
SHALLOW = Case("shallow", "RecordOrders of 200, 8 in flight, 10 ancestors", "batch", 8, 200, shop.SHALLOW)
DEEP = Case("deep", "RecordOrders of 200, 8 in flight, 10,000 ancestors", "batch", 8, 200, shop.DEEP)
AGENTS = Case("agents", "RecordOrders of 500, 4 in flight, deep agents: 9 payees over a chain of 10", "batch", 4, 500, shop.AGENTS)
AGENTS_UNARY = Case("agents-unary", "RecordOrder, 64 in flight, deep agents", "unary", 64, 1, shop.AGENTS)
RICH = Case("rich", "RecordOrders of 500, 4 in flight, the rich plan: 13 payees over a chain of 10", "batch", 4, 500, shop.RICH)
RICH_UNARY = Case("rich-unary", "RecordOrder, 64 in flight, the rich plan", "unary", 64, 1, shop.RICH)
NOOP_64 = Case("noop-64", "Health/Check, 64 in flight", "health", 64)
NOOP_1 = Case("noop-1", "Health/Check, 1 in flight", "health", 1)
COMMIT = Case("commit", "PostgreSQL: commit of one row, 1 connection", "commit", 1)
BARE = Case("bare", "PostgreSQL: bare set-based call of 200, 1 connection", "bare", 1, 200)
PGLEDGER = Case("pgledger", "pgledger: an order a call, hot company account, 1 connection", "pgledger", 1)
EVENTSOURCING = Case("eventsourcing", "eventsourcing: Application.save, 5 events an order, 4 threads", "eventsourcing", 4)
READS = {
    "GetBalance": Case("balance", "GetBalance, 64 in flight", "balance", 64),
    "GetOrder": Case("order", "GetOrder, 64 in flight", "order", 64),
    "Explain": Case("explain", "Explain, 64 in flight", "explain", 64),
}
# The same reads while others write.
BESIDE = {
    name: Case(f"{case.key}-beside", f"{case.title}, beside 2 writers of 200", case.call, 64, writers=2) for name, case in READS.items()
}

ORDERS = (
    *UNARY.values(),
    BATCH,
    BATCH_200,
    STREAM_1,
    STREAM_4,
    TWO_SERVERS,
    PROGRAMS,
    SHALLOW,
    DEEP,
    AGENTS,
    AGENTS_UNARY,
    RICH,
    RICH_UNARY,
)
READING = tuple(case for name in READS for case in (READS[name], BESIDE[name]))
COMPARED = (NOOP_64, NOOP_1, COMMIT, BARE, PGLEDGER)
# In the order of a round: what is compared runs in the same minute.
CASES = (
    *(PGLEDGER, BARE, BATCH_200, STREAM_4, STREAM_1, SHALLOW, DEEP, BATCH, AGENTS, RICH),
    *(COMMIT, UNARY[1], NOOP_1, UNARY[4], UNARY[16], UNARY[256], UNARY[64], TWO_SERVERS, PROGRAMS, AGENTS_UNARY, RICH_UNARY, NOOP_64),
    *READING,
)
PEERS = (BATCH_200, BARE, PGLEDGER, EVENTSOURCING)
# What an item is called where it is not an order.
UNITS = {"health": "calls", "balance": "calls", "order": "calls", "explain": "calls", "commit": "commits"}

RATIOS = (
    ("RecordOrder over Health/Check, 64 in flight", UNARY[64], NOOP_64),
    ("RecordOrder over Health/Check, 1 in flight", UNARY[1], NOOP_1),
    ("RecordOrder to two servers over one, 64 in flight", TWO_SERVERS, UNARY[64]),
    ("RecordOrders of 500 over RecordOrder, 64 in flight", BATCH, UNARY[64]),
    ("RecordOrders of 500 over commits of one row", BATCH, COMMIT),
    ("cost of an order under deep agents over the two-level plan, 64 in flight", UNARY[64], AGENTS_UNARY),
    ("cost of an order under the rich plan over the two-level plan, 64 in flight", UNARY[64], RICH_UNARY),
)
