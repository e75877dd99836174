"""Which postings are explained: a few of every kind, chosen by the hashes of their entries, so that nobody picks them and anybody finds
the same ones again."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from fenrun.log.v1 import log_pb2 as pb

# Of each kind; more kinds than this page has room for get fewer.
KEPT = 32


class Chosen(NamedTuple):
    """A posting: the entry's hash, its position, and which of its postings, from 1."""

    hash: bytes
    position: int
    number: int
    stream: str


# (type of entry, plan's position and rule, or account): the parts a sample must cover.
Kind = tuple[str, int, int, int]


class Sample:
    """Offer it every posting; it keeps those of each kind whose entries have the lowest hashes."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, list[Chosen]] = {}

    def shares(self, entry: pb.Entry, plan_position: int, shares: Sequence[tuple[int, str, str]], postings: Sequence[pb.Posting]) -> None:
        """Shares are (rule index, payee or empty for breakage, asset); what is chosen of each is the payee's posting."""
        for rule_index, payee, asset in shares:
            kind = (entry.type, plan_position, rule_index, 1 if payee else 0)
            if self._wants(kind, entry.hash):
                for number, posting in enumerate(postings, 1):
                    mine = posting.member_id == payee if payee else posting.account == pb.ACCOUNT_BREAKAGE
                    if mine and posting.asset == asset:
                        self._keep(kind, Chosen(entry.hash, entry.position, number, entry.stream))
                        break

    def postings(self, entry: pb.Entry, postings: Sequence[pb.Posting]) -> None:
        """Of entries that only move money."""
        for number, posting in enumerate(postings, 1):
            kind = (entry.type, 0, 0, int(posting.account))
            if self._wants(kind, entry.hash):
                self._keep(kind, Chosen(entry.hash, entry.position, number, entry.stream))

    def chosen(self, most: int) -> list[Chosen]:
        """Up to `most`, by position: the first of every kind, then the second of every kind, and so on."""
        found: dict[tuple[int, int], Chosen] = {}
        for rank in range(KEPT):
            for _, kept in sorted(self._kinds.items()):
                if rank < len(kept) and len(found) < most:
                    found.setdefault((kept[rank].position, kept[rank].number), kept[rank])
        return [found[key] for key in sorted(found)]

    def _wants(self, kind: Kind, entry_hash: bytes) -> bool:
        kept = self._kinds.get(kind)
        return kept is None or len(kept) < KEPT or entry_hash < kept[-1].hash

    def _keep(self, kind: Kind, chosen: Chosen) -> None:
        kept = self._kinds.setdefault(kind, [])
        at = bisect_left(kept, (chosen.hash,))
        # One of an entry and kind is enough.
        if at == len(kept) or kept[at].hash != chosen.hash:
            kept.insert(at, chosen)
            del kept[KEPT:]
