"""The report's figures agree with every other fold of the same log, and its page cannot be broken out of."""

import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from fenrun.log.v1 import log_pb2
from typer.testing import CliRunner

from services.__main__ import app
from services.auditor.report.folding import Fold, Members
from services.auditor.report.lineage import HEAD_LEVELS, HEAD_PEOPLE, Tree, grow, heads
from services.auditor.report.making import Made, make
from services.auditor.report.page import Origin, write
from services.auditor.report.sampling import Sample
from services.auditor.report.surveying import CannotReport, survey
from services.auditor.verifying.laws import Laws
from services.ledger import codec as ledger_codec
from services.ledger.domain import books as ledger_books
from services.ledger.domain.books import Balance
from services.ledger.domain.facts import Account
from services.referral import codec as referral_codec
from services.referral.domain import roster as referral_roster
from tests.auditor.logs import KEY, bundle, changed, golden, read, rehash
from tests.auditor.programs import program
from tests.auditor.test_stories import recorded
from tests.oracle.facts import Write
from tests.stateful.drawing import CURRENCY
from tests.stateful.grpc_driver import GrpcDriver
from tests.stateful.stories import tell_story

STORY = golden("v2")
SHOP = program(120)
# What a forged log could hold where an id stands; the contract takes none of these.
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "a\u202egnp.exe",
    "<!--",
    "]]>&amp;{0}%s`${1}`",
    "__proto__",
)


def made(log: Sequence[log_pb2.Entry]) -> Made:
    return make(lambda: log)


def page_of(log: Sequence[log_pb2.Entry], origin: Origin | None = None) -> str:
    return "".join(write(made(log), origin or Origin("2026-06-01T00:00:00Z")))


# ---------------------------------------------------------------- figures


def check_against_the_domain(log: Sequence[log_pb2.Entry]) -> None:
    """Balances, gross figures, tiers and bindings as the ledger's and the referral's own states have them."""
    from services.auditor.verifying.history import stored

    found, books, roster = made(log), ledger_books.Books(), referral_roster.Roster()
    for entry in read(log):
        ledger_books.evolve(books, entry)
    for message in log:
        referral_roster.evolve(roster, referral_codec.read(stored(message)))
    members, figures = found.members, found.figures
    numbers = {member_id: number for number, member_id in enumerate(members.ids)}
    assert set(numbers) == set(books.members)
    balances = {
        (members.ids[number], asset, account): balance
        for (asset, account), column in members.balances.items()
        for number, balance in enumerate(column)
        if balance
    }
    accounts = (Account.PENDING, Account.AVAILABLE, Account.RESERVED, Account.PAID, Account.DEBT)
    expected = {
        (member_id, asset, int(account)): amount
        for (member_id, asset), held in books.balances.items()
        for account, amount in zip(accounts, held[:5], strict=True)
    } | {(member_id, asset, int(account)): amount for (member_id, asset, account), amount in books.apart.items()}
    assert balances == {key: amount for key, amount in expected.items() if amount}
    for number, member_id in enumerate(members.ids):
        member, held = books.members[member_id], books.balance(member_id)
        assert member is not None
        assert members.earned[number] == held.accrued - held.reversed, member_id
        referrer = members.referrer[number]
        assert (bool(members.locked[number]), members.ids[referrer] if referrer >= 0 else "") == (member.locked, member.referrer_id)
        standing = roster.members[member_id]
        assert standing is not None
        seat = roster.seats.get(member_id)
        ended = seat is not None and seat.until_us is not None and seat.until_us <= log[-1].recorded_at.ToMicroseconds()
        assert members.tier[number] == (seat.previous_tier if seat is not None and ended else standing.tier)
        assert bool(members.frozen[number]) == (member_id in roster.frozen)
    assert figures.sums == dict.fromkeys(figures.sums, 0)
    for one in figures.flows:
        gross = [Balance(*held) for (_, asset), held in books.balances.items() if asset == one.asset]
        assert one.total.accrued == sum(held.accrued for held in gross)
        assert one.total.reversed == sum(held.reversed for held in gross)
        assert one.total.adjusted + one.total.written_off == sum(held.adjusted for held in gross)
        assert one.total.breakage == figures.balance("breakage", one.asset)
    # Conservation: what rules gave, less what was taken back, and breakage are what they have cost.
    for asset in figures.sums:
        of_asset = [rule for rule in figures.rules if rule.asset == asset]
        assert sum(rule.net_minor + rule.breakage_minor for rule in of_asset) == -figures.balance("commission", asset)
        assert sum(sum(rule.by_tier.values()) for rule in of_asset) == sum(rule.net_minor for rule in of_asset)
    assert {hold.hold_id for hold in figures.holds} == set(books.holds)
    assert not any(wrong.count for wrong in figures.wrong)


def test_figures_are_those_of_the_domain_on_every_type_of_entry() -> None:
    check_against_the_domain(STORY)


def test_figures_are_those_of_the_domain_on_a_shop_of_a_year() -> None:
    check_against_the_domain(SHOP)


@pytest.mark.parametrize("seed", range(4000, 4012))
def test_figures_are_those_of_the_domain_whatever_a_server_recorded(
    channel: grpc.Channel, fresh_program_id: Callable[[], str], seed: int
) -> None:
    program_id = fresh_program_id()
    told: list[Write] = []
    tell_story(GrpcDriver(channel, program_id, CURRENCY), Random(seed), 60, told)
    log = recorded(channel, program_id)
    check_against_the_domain(log)
    assert page_of(log).endswith("</html>\n")


def test_own_volume_is_what_was_bought_less_what_came_back() -> None:
    expected: Counter[str] = Counter()
    buyers = {}
    for entry in SHOP:
        if entry.type == "order.paid.v1":
            order = log_pb2.OrderPaid.FromString(entry.fact)
            buyers[order.order_id] = order.member_id
            expected[order.member_id] += sum(line.base_minor for line in order.lines)
        elif entry.type == "order.refunded.v1":
            refund = log_pb2.OrderRefunded.FromString(entry.fact)
            expected[buyers[refund.order_id]] -= sum(line.base_minor for line in refund.lines)
    found = made(SHOP)
    assert any(entry.type == "order.refunded.v1" for entry in SHOP)
    assert dict(zip(found.members.ids, found.members.own, strict=True)) == {one: expected[one] for one in found.members.ids}


def test_the_trial_balance_is_that_of_the_verifier_which_shares_no_code() -> None:
    past: dict[str, list[log_pb2.Entry]] = {}
    laws = Laws(lambda stream, before: [one for one in past.get(stream, []) if one.position < before])
    for entry in SHOP:
        laws.add(entry)
        past.setdefault(entry.stream, []).append(entry)
    theirs = {(asset, log_pb2.Account.Name(account)[8:].lower()): amount for (asset, account), amount in laws.totals().items() if amount}  # type: ignore[arg-type]
    assert {(row.asset, row.account): row.balance_minor for row in made(SHOP).figures.trial_balance if row.balance_minor} == theirs


def test_days_are_those_of_the_plans_zone() -> None:
    """Orders of the shop are paid at 01:00 UTC and later; in +08:00 some are of the next day, and the months differ from those in UTC."""
    [flows, _] = made(SHOP).figures.flows
    assert flows.unit == "month"
    by_month: Counter[str] = Counter()
    for entry in SHOP:
        if entry.type == "order.paid.v1":
            local = (entry.occurred_at.ToMicroseconds() + 8 * 3600 * 1_000_000) // 1_000_000
            stamp = log_pb2.Entry()
            stamp.occurred_at.FromSeconds(local)
            month = stamp.occurred_at.ToJsonString()[:7]
            by_month[month] += sum(line.base_minor for line in log_pb2.OrderPaid.FromString(entry.fact).lines)
    assert {row.begins[:7]: row.flow.sales for row in flows.rows if row.flow.sales} == dict(by_month)
    # Months follow each other without gaps.
    assert [row.begins for row in flows.rows] == sorted(row.begins for row in flows.rows)
    assert len(flows.rows) == len({row.begins for row in flows.rows}) >= 14


def test_corrections_and_members_bound_to_nobody_are_found() -> None:
    locks = made(SHOP).figures.locks
    assert locks.corrected == 3
    assert {one.reason for one in locks.corrections} == {"the wrong code was typed at the counter"}
    assert {(one.requested_by, one.approved_by) for one in locks.corrections} == {("ann", "bob")}
    assert {one.to_id for one in locks.corrections} == {""}
    assert {one.member_id for one in locks.corrections} <= {one.member_id for one in locks.unbound_listed}
    assert locks.unbound == len(locks.unbound_listed)
    assert locks.unbound_volume_minor == sum(one.amount_minor for one in locks.unbound_listed)


# ---------------------------------------------------------------- what is wrong, or no log


def test_what_does_not_balance_is_told_with_its_position() -> None:
    position = next(one.position for one in SHOP if one.type == "adjustment.posted.v1")

    def more(entry: log_pb2.Entry) -> None:
        decision = log_pb2.MovementDecision.FromString(entry.decision)
        decision.postings[0].amount_minor += 1
        entry.decision = decision.SerializeToString(deterministic=True)

    log = rehash([changed(one, more) if one.position == position else one for one in SHOP], position)
    found = made(log).figures
    assert [(one.name, one.count, one.where) for one in found.wrong if one.count] == [("unbalanced", 1, [str(position)])]
    assert found.sums["CNY"] == 1
    page = page_of(log)
    assert "The trial balance in <bdi>CNY</bdi> does not sum to zero" in page
    assert "The trial balance sums to zero" not in page


def test_every_type_of_entry_is_folded_or_known_to_move_nothing() -> None:
    """Whoever adds a type decides what it means to the report."""
    fold = Fold(survey(STORY), Sample())
    for name in {*ledger_codec.READERS, *referral_codec.READERS}:
        fold.types[name] += 1
    assert fold.unknown == {}
    fold.types["order.gifted.v9"] += 2
    assert fold.unknown == {"order.gifted.v9": 2}
    page = page_of([*STORY, changed(STORY[-1], _of_later)])
    assert "Entries of a type this version does not know" in page
    assert "order.gifted.v9" in page


def _of_later(entry: log_pb2.Entry) -> None:
    entry.position += 1
    entry.type, entry.stream = "order.gifted.v9", "order/later"


def test_nothing_is_kept_of_an_order_once_its_last_refund_is_read() -> None:
    fold = Fold(survey(SHOP), Sample())
    most = 0
    for entry in SHOP:
        fold.add(entry)
        most = max(most, len(fold.sources))
    assert 0 < most <= sum(entry.type == "order.refunded.v1" for entry in SHOP)
    assert not fold.sources


def without(position: int) -> list[log_pb2.Entry]:
    return [one for one in STORY if one.position != position]


def put(entry: log_pb2.Entry, **fields: bytes) -> None:
    for name, value in fields.items():
        setattr(entry, name, value)


def garbled(position: int, **fields: bytes) -> list[log_pb2.Entry]:
    return [changed(one, lambda entry: put(entry, **fields)) if one.position == position else one for one in STORY]


ORDER = next(one.position for one in STORY if one.type == "order.paid.v1")
REFUND = next(one.position for one in STORY if one.type == "order.refunded.v1")
ENROLMENT = next(one.position for one in STORY if one.type == "member.enrolled.v1")


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], "no entries"),
        (without(5), "position 5 is missing: 6 comes after 4"),
        (garbled(2, fact=b"\xff\xff"), "the plan at position 2 cannot be read"),
        (garbled(ORDER, decision=b"\xff"), f"the entry at position {ORDER} cannot be read"),
        (garbled(ENROLMENT, fact=b""), "names 'ann', who was never enrolled"),
        ([changed(one, lambda entry: setattr(entry, "stream", "order/x")) if one.position == ORDER else one for one in STORY],
         f"the entry at position {REFUND} takes back from order/o1, which is not there"),
    ],
)  # fmt: skip
def test_what_is_no_whole_log_is_refused_in_one_sentence(log: list[log_pb2.Entry], told: str) -> None:
    with pytest.raises(CannotReport, match=re.escape(told)):
        made(log)


# ---------------------------------------------------------------- the tree


def tree_of(referrers: Sequence[int]) -> Tree:
    members = Members(ids=[f"m{number}" for number in range(len(referrers))], referrer=list(referrers), own=[10] * len(referrers))
    return grow(members)


def test_everybody_stands_before_those_below_and_larger_branches_first() -> None:
    #      0         4
    #    1   2
    #        3
    tree = tree_of([-1, 0, 0, 2, -1])
    assert list(tree.members) == [0, 2, 3, 1, 4]
    assert list(tree.parent) == [-1, 0, 1, 0, -1]
    assert list(tree.people) == [4, 2, 1, 1, 1]
    assert list(tree.levels) == [3, 2, 1, 1, 1]
    assert list(tree.below_minor) == [30, 10, 0, 0, 0]
    assert not tree.circles


def test_circles_of_a_forged_log_are_cut_and_counted() -> None:
    tree = tree_of([1, 2, 0, 2, 4])
    assert tree.circles == 4
    assert sorted(tree.members) == [0, 1, 2, 3, 4]
    assert sum(1 for above in tree.parent if above < 0) == 2


def test_a_line_of_a_hundred_thousand_people_is_no_deeper_than_memory() -> None:
    tree = tree_of([*range(-1, 99_999)])
    assert (tree.people[0], tree.levels[0], tree.below_minor[0]) == (100_000, 100_000, 999_990)


def test_thirty_people_in_three_levels_counting_the_head_are_what_is_listed() -> None:
    flat = [-1] + [0] * 29  # thirty people, two levels
    small = [-1] + [0] * 27 + [1]  # twenty-nine people, three levels
    enough = [-1] + [0] * 28 + [1]
    assert (HEAD_PEOPLE, HEAD_LEVELS) == (30, 3)
    assert [heads(tree_of(one)) for one in (flat, small, enough)] == [[], [], [0]]


def test_concentration_adds_up() -> None:
    found = made(program(400)).figures.concentration
    assert found.heads
    assert found.listed[0].people >= found.listed[-1].people >= 30
    assert found.people_under_heads == sum(one.people for one in found.listed if not one.depth)
    assert [one.earned_minor for one in found.top] == sorted(one.earned_minor for one in found.top)
    assert found.top[-1].earned_minor <= found.earned_minor
    assert 0 < found.heads_earned_minor < found.earned_minor


# ---------------------------------------------------------------- explained postings


def kinds(log: Iterable[log_pb2.Entry]) -> set[tuple[str, str]]:
    """(type of entry, rule) of every share to a member in a log."""
    found = set()
    plans: dict[int, list[str]] = {}
    messages: dict[str, type[Any]] = {"order.paid.v1": log_pb2.OrderPaidDecision, "task.done.v1": log_pb2.TaskDoneDecision}
    for entry in log:
        if entry.type == "plan.published.v1":
            document = json.loads(log_pb2.PlanPublished.FromString(entry.fact).document)
            plans[entry.position] = [rule["id"] for rule in document["rules"]]
        if entry.type in messages:
            decision = messages[entry.type].FromString(entry.decision)
            found |= {(entry.type, plans[decision.plan_position][share.rule_index]) for line in decision.lines for share in line.shares}
    return found


@pytest.mark.parametrize("log", [STORY, SHOP], ids=["story", "shop"])
def test_the_sample_covers_every_type_of_entry_and_every_rule(log: list[log_pb2.Entry]) -> None:
    found = made(log).figures.explained
    assert len(found) == len({one["posting"] for one in found}) <= 200
    moving = {one.type for one in log if one.type in _moving()}
    assert {one["type"] for one in found} == moving
    assert kinds(log) <= {(one["type"], share["rule_id"]) for one in found for share in one["shares"]}


def _moving() -> set[str]:
    from services.auditor.verifying.laws import POSTING

    return {one.type for log in (STORY, SHOP) for one in log if one.type in POSTING and POSTING[one.type].FromString(one.decision).postings}


def test_the_sample_is_the_same_again_and_smaller_ones_still_cover_the_types() -> None:
    assert made(SHOP).figures.explained == made(SHOP).figures.explained
    few = make(lambda: SHOP, sample=40).figures.explained
    assert len(few) == 40
    assert {one["type"] for one in few} == {one["type"] for one in made(SHOP).figures.explained}


def test_shares_explain_a_posting_whole() -> None:
    checked = 0
    for one in made(STORY).figures.explained:
        whole = sum(moved["amount_minor"] for moved in one["moved"])
        if one["shares"] and one["member_id"] and not one["shares_left_out"]:
            assert sum(share["amount_minor"] for share in one["shares"]) == whole, one["posting"]
            assert all(share["entitled_after_minor"] - share["entitled_before_minor"] == share["amount_minor"] for share in one["shares"])
            checked += 1
    assert checked > 40


# ---------------------------------------------------------------- the page


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, and the languages of its labels in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.languages: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = dict(attrs)
        self.attributes |= set(given)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src", "action", "data", "srcset")]
        if tag in ("span", "b") and "lang" in given:
            self.languages.append(given["lang"] or "")


def test_hostile_text_stays_text() -> None:
    log = program(60, lambda number: HOSTILE[number] if number < len(HOSTILE) else f"m{number}")
    page = page_of(log)
    reader = Reader()
    reader.feed(page)
    assert reader.tags["script"] == 2, "the data and the page's own"
    assert not reader.tags["img"]
    assert not {name for name in reader.attributes if name.startswith("on")}
    assert "style" not in reader.attributes
    assert "\u202e" not in page
    assert "\\u202egnp" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert set(HOSTILE) <= set(data["ids"])


def test_the_page_asks_nobody_for_anything() -> None:
    page = page_of(SHOP)
    reader = Reader()
    reader.feed(page)
    assert all(address.startswith("#") for address in reader.addresses)
    assert "url(" not in page
    assert "@import" not in page
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy.startswith("default-src &#x27;none&#x27;;")
    for tag in ("style", "script"):
        [content] = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert b64encode(sha256(content.encode()).digest()).decode() in policy


@pytest.mark.parametrize("log", [STORY, SHOP], ids=["story", "shop"])
def test_every_label_stands_in_both_languages(log: list[log_pb2.Entry]) -> None:
    reader = Reader()
    reader.feed(page_of(log))
    assert len(reader.languages) > 400
    assert reader.languages == ["en", "zh-Hans"] * (len(reader.languages) // 2)


def test_amounts_have_the_currencys_decimals() -> None:
    log = program(60)
    yen = [changed(one, _in_yen) for one in log]
    page = page_of(yen)
    assert '"decimals":0' in page
    assert re.search(r'<span class="minus">-[0-9,]+</span>', page)
    assert not re.search(r"<td class=\"n\"><span[^>]*>-?[0-9,]+\.[0-9]{2}</span>", page)


def _in_yen(entry: log_pb2.Entry) -> None:
    entry.fact, entry.decision = (told.replace(b"CNY", b"JPY") for told in (entry.fact, entry.decision))


# ---------------------------------------------------------------- the command line


def run(*arguments: str | Path) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [str(one) for one in arguments])
    return found.exit_code, found.stdout, found.stderr


def test_a_page_is_written_beside_the_figures_as_json(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", SHOP, sizes=[100, len(SHOP)])
    status, out, err = run("audit", "report", path, "--out", tmp_path / "r.html", "--json")
    assert (status, err) == (0, f"{tmp_path / 'r.html'}: open it in a browser; it needs no network.\n")
    told = json.loads(out)
    assert told["verified"] is None
    assert [one["size"] for one in told["checkpoints"]] == [100, len(SHOP)]
    assert told["sums"] == {"CNY": 0, "leaves": 0}
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "was not checked with this page" in page
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "r.html"]


def test_a_page_as_of_a_position_is_that_of_the_log_as_it_was(tmp_path: Path) -> None:
    path, position = bundle(tmp_path / "b", SHOP), len(SHOP) // 2
    status, out, _ = run("audit", "report", path, "--to", str(position), "--json")
    assert status == 0
    told = json.loads(out)
    assert (told["last_position"], told["head_hash"]) == (position, SHOP[position - 1].hash.hex())
    assert told["flows"] == json.loads(json.dumps(made(SHOP[:position]).figures.to_json()))["flows"]
    check_against_the_domain(SHOP[:position])
    status, _, err = run("audit", "report", path, "--to", str(len(SHOP) + 1), "--json")
    assert (status, err.strip()) == (
        1,
        f"fenrun: no page was written: the bundle ends at position {len(SHOP)}, {len(SHOP) + 1} was asked for",
    )


def test_verifying_writes_what_it_found_on_the_page(tmp_path: Path) -> None:
    key, page = str(KEY.verifier_key), tmp_path / "r.html"
    good = bundle(tmp_path / "good", SHOP)
    assert run("audit", "verify", good, "--key", key, "--processes", "1", "--report", page)[0] == 0
    assert "everything holds: hashes" in page.read_text(encoding="utf-8")

    position = next(one.position for one in SHOP if one.type == "adjustment.posted.v1")

    def twice(entry: log_pb2.Entry) -> None:
        decision = log_pb2.MovementDecision.FromString(entry.decision)
        for posting in decision.postings:
            posting.amount_minor *= 2
        entry.decision = decision.SerializeToString(deterministic=True)

    forged = rehash([changed(one, twice) if one.position == position else one for one in SHOP], position)
    bad = bundle(tmp_path / "bad", forged)
    assert run("audit", "verify", bad, "--key", key, "--processes", "1", "--report", page)[0] == 1
    shown = page.read_text(encoding="utf-8")
    assert f"decisions: position {position}:" in shown
    assert "everything holds: hashes" not in shown


def test_what_is_no_bundle_leaves_the_old_page_alone(tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("the old one", encoding="utf-8")
    status, _, err = run("audit", "report", tmp_path, "--out", page)
    assert status == 1
    assert err.startswith("fenrun: no page was written: ")
    path = bundle(tmp_path / "b", SHOP)
    segment = path / "entries/00000001.bin"
    segment.write_bytes(segment.read_bytes()[:-3])
    status, _, err = run("audit", "report", path, "--out", page)
    assert (status, "entries/00000001.bin cannot be read: an entry of" in err) == (1, True)
    assert page.read_text(encoding="utf-8") == "the old one"
    assert run("audit", "report", path)[0] == 1
