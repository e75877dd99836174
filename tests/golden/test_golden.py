"""Stored history of every earlier version still reads, still chains, still folds to the same rows, still decides the same."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2

from services.auditor.verifying.history import stored as as_stored
from services.kernel.decider import Draft, Entry
from services.ledger import codec as ledger_codec
from services.ledger import projection as ledger_projection
from services.ledger.domain import books, commands
from services.ledger.domain import decide as ledger_decide
from services.ledger.domain import facts as ledger_facts
from services.ledger.domain.engine import ENGINE_VERSION
from services.ops.projections import Chain
from services.referral import codec as referral_codec
from services.referral import names
from services.referral import projection as referral_projection
from services.referral.domain import decide as referral_decide
from services.referral.domain import facts as referral_facts
from services.referral.domain import roster
from services.runtime.stored import Stored

HISTORIES = sorted(path.parent for path in Path(__file__).resolve().parent.glob("*/entries.hex"))
# Histories kept before points and other assets.
BEFORE_ASSETS = {"v1"}
# Histories kept when one view held the balances of now and of the past.
BEFORE_BALANCE_HISTORY = {"v1", "v2", "v3"}
EVERY_TYPE = {*ledger_codec.READERS, *referral_codec.READERS}


def stored_entries(history: Path) -> list[Stored]:
    texts = (history / "entries.hex").read_text(encoding="ascii").splitlines()
    return [as_stored(log_pb2.Entry.FromString(bytes.fromhex(text))) for text in texts]


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name)
def test_the_chain_of_an_old_history_holds(history: Path) -> None:
    chain, versions = Chain(), Counter[str]()
    for stored in stored_entries(history):
        chain.add(stored)
        versions[stored.stream] += 1
        assert stored.stream_version == versions[stored.stream]
    assert chain.faults == []


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name)
def test_an_old_history_folds_to_the_rows_it_had(history: Path) -> None:
    expected = json.loads((history / "views.json").read_text(encoding="utf-8"))
    if history.name in BEFORE_ASSETS:
        # The view of what is due has named the asset since; "" is the program's currency. Views that are not in the file came later.
        expected["ledger.due"] = [[*row[:3], "", *row[3:]] for row in expected["ledger.due"]]
    if history.name in BEFORE_BALANCE_HISTORY:
        past = expected["ledger.balance_history"] = expected["ledger.balances"]
        newest = {(row[0], row[1]): row for row in sorted(past, key=lambda row: int(row[2]))}
        expected["ledger.balances"] = sorted(newest.values())
    folded: dict[str, Any] = {}
    for read, folding in ((ledger_codec.read_to_fold, ledger_projection.folding()), (referral_codec.read, referral_projection.folding())):
        for stored in stored_entries(history):
            folding.add(read(stored))
        folded |= {name: sorted(map(list, rows)) for name, rows in folding.rows().items()}
    assert {name: folded[name] for name in expected} == expected


# The command that told a fact of the referral service.
TELLERS: dict[type, Any] = {
    referral_facts.MemberEnrolled: referral_decide.EnrollMember,
    referral_facts.MemberTouched: referral_decide.RecordTouch,
    referral_facts.MemberUpgraded: referral_decide.UpgradeMember,
    referral_facts.BindingCorrected: referral_decide.CorrectBinding,
    referral_facts.RoleGranted: referral_decide.GrantRole,
    referral_facts.RoleEnded: referral_decide.EndRole,
    referral_facts.MemberNamed: referral_decide.NameMember,
    referral_facts.MemberErased: referral_decide.EraseMember,
}


def command_of(entry: Entry) -> Any:
    """The command that told a fact, for the facts of the ledger."""
    fact = entry.fact
    match fact:
        case ledger_facts.OrderPaid():
            return commands.RecordOrder(fact, entry.occurred_us)
        case ledger_facts.OrderCompleted():
            return commands.CompleteOrder(fact, entry.occurred_us)
        case ledger_facts.OrderRefunded():
            return commands.RefundOrder(fact, entry.occurred_us)
        case ledger_facts.OrderReleased():
            return commands.ReleaseDue(entry.occurred_us, 500)
        case ledger_facts.PayoutRequested():
            return commands.RequestPayout(fact, entry.occurred_us)
        case ledger_facts.PayoutPaid():
            return commands.ConfirmPayout(fact, entry.occurred_us)
        case ledger_facts.PayoutFailed():
            return commands.FailPayout(fact, entry.occurred_us)
        case ledger_facts.AdjustmentPosted():
            return commands.PostAdjustment(fact, entry.occurred_us)
        case ledger_facts.HoldPlaced():
            return commands.PlaceHold(fact, entry.occurred_us)
        case ledger_facts.HoldLifted():
            return commands.LiftHold(fact, entry.occurred_us)
        case ledger_facts.PlanPublished():
            return commands.PublishPlan(fact, entry.occurred_us)
        case ledger_facts.GroupOpened():
            return commands.OpenGroup(fact, entry.occurred_us)
        case ledger_facts.GroupFormed():
            return commands.FormGroup(fact, entry.occurred_us)
        case ledger_facts.GroupFailed():
            return commands.FailGroup(fact, entry.occurred_us)
        case ledger_facts.TaskDone():
            return commands.RecordTask(fact, entry.occurred_us)
        case ledger_facts.PeriodClosed():
            return commands.ClosePeriod(fact, entry.occurred_us)
        case ledger_facts.RewardReleased():
            return commands.ReleaseDue(entry.occurred_us, 500)
        case ledger_facts.DepositMoved():
            return commands.MoveDeposit(fact, entry.occurred_us)
        case ledger_facts.StockTransferred():
            return commands.TransferStock(fact, entry.occurred_us)
        case ledger_facts.BalanceOpened():
            return commands.OpenBalance(fact, entry.occurred_us)
        case ledger_facts.BooksSealed():
            return commands.SealBooks(fact, entry.occurred_us)
    return None


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.name)
def test_every_decision_of_an_old_history_is_taken_again_byte_for_byte(history: Path) -> None:
    """From the facts alone: the engine that decided once still decides the same."""
    state = books.Books()
    taken = 0
    # What a command drafts besides the entry of its own fact: a closed group's orders, the correction of a period.
    following: list[Draft] = []
    for stored in stored_entries(history):
        entry = ledger_codec.read(stored)
        command = command_of(entry)
        if command is not None:
            state.engine_version = getattr(entry.decision, "engine_version", ENGINE_VERSION)
            answer = ledger_decide.decide(state, command)
            assert isinstance(answer, list)
            draft = next(draft for draft in answer if draft.stream == stored.stream)
            following = [] if isinstance(command, commands.ReleaseDue) else [one for one in answer if one is not draft]
        elif following:
            draft = following.pop(0)
        else:
            draft = None
        if draft is not None:
            assert ledger_codec.write(draft) == (stored.type, stored.fact, stored.decision), stored.position
            taken += 1
        books.evolve(state, entry)
    members = roster.Roster()
    for stored in stored_entries(history):
        entry = referral_codec.read(stored)
        if type(entry.fact) in TELLERS:
            answer = referral_decide.decide(members, TELLERS[type(entry.fact)](entry.fact, entry.occurred_us))
            assert isinstance(answer, list)
            assert referral_codec.write(answer[0]) == (stored.type, stored.fact, stored.decision), stored.position
            taken += 1
        roster.evolve(members, entry)
    assert taken == len(stored_entries(history)) - 1  # all but the program's own


def test_names_that_were_kept_are_still_read_and_erased_ones_are_not() -> None:
    history = HISTORIES[0].parent / "v4"
    kept = json.loads((history / "keys.json").read_text(encoding="utf-8"))
    master = names.MasterKeys.parse([kept["master_key"]])
    keys = {member: master.unwrap("golden", member, master_id, bytes.fromhex(hex_)) for member, master_id, hex_ in kept["member_keys"]}
    read = {}
    for stored in stored_entries(history):
        told = referral_codec.read(stored).fact
        if isinstance(told, referral_facts.MemberNamed):
            hidden = names.Hidden(told.mac, told.nonce, told.ciphertext)
            key = keys.get(told.member_id)
            read[told.naming_id] = None if key is None else names.reveal(key, "golden", told.member_id, told.naming_id, hidden)
            if key is not None:
                again = names.hide(key, "golden", told.member_id, told.naming_id, read[told.naming_id] or "")
                assert again.mac == told.mac
    assert read == {"n1": "Ann", "n2": None, "n3": "名" * 100, "n4": "安娜 🍵"}


def test_the_histories_hold_every_type_of_entry_and_every_account() -> None:
    stored = [one for history in HISTORIES for one in stored_entries(history)]
    assert {one.type for one in stored} == EVERY_TYPE
    moved = {posting.account for one in stored for posting in getattr(ledger_codec.read(one).decision, "postings", ())}
    assert moved == set(ledger_facts.Account)
