"""The benchmark behind docs/performance.md: `make bench`, or `python -m tests.bench --help`.

    shop        the program that is measured: who buys, who earns, and what the books must say afterwards
    load        the load clients, which run in a process of their own
    retail      the import of Online Retail through the command line
    machine     processor time by whom, and what the figures were measured on
    report      figures to text
    __main__    sets up, runs the cases in rounds, checks the books after each

pytest collects nothing here.
"""
