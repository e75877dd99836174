"""What every service shares and nothing touches the outside: money, rates, time, hashes, refusals. Standard library only."""
