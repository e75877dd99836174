"""The benchmark behind docs/performance.md: `make bench`, `make bench-peers`, or `python -m tests.bench --help`.

    cases       what is measured, by key
    shop        the programs that are measured: who buys, who earns, and what the books must say afterwards
    load        the load clients of the API, which run in a process of their own
    database    PostgreSQL without Fenrun: one commit, and the bare set-based call
    peers       pgledger and the eventsourcing library on the same orders
    retail      the import of Online Retail through the command line
    auditing    what an auditor does with it
    running     a server to measure, the cases in rounds, the books checked after each
    grow        a program that grows, beside one that stays small
    goals       what is to be reached, and whether it is
    machine     processor time by whom, memory, and what the figures were measured on
    report      figures to text
    picture     figures to an SVG
    following   how fast statistics follow, by the shape of the tree; a command of its own
    __main__    sets up, and writes the document

The tests beside are of the pure parts; pytest measures nothing here.
"""
