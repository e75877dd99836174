"""Whatever is done to a bundle is found, and the first bad position named; what nobody touched passes."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fenrun.log.v1 import log_pb2

from services.audit.domain import checkpoint, merkle
from services.audit.domain.checkpoint import VerifierKey
from services.audit.signing import SigningKey
from services.auditor.bundle import MANIFEST, File, frames, hash_file, read_manifest, read_whole, varint
from services.auditor.verifying.deciding import BY_ENGINE, FOLLOWING, every_type
from services.auditor.verifying.laws import POSTING
from services.auditor.verifying.report import CHECKS, Report
from services.auditor.verifying.run import Verification, verify
from services.ledger import codec as ledger_codec
from services.ledger.domain import commands
from services.ledger.domain.engine import ENGINES
from services.ledger.domain.facts import LineKind, OrderLine, OrderPaid
from services.referral import codec as referral_codec
from services.referral.domain.decide import EnrollMember
from services.referral.domain.facts import MemberEnrolled
from tests.auditor.logs import FIRST_DAY, KEY, Log, bundle, changed, golden, note, rehash

STORY = golden("v2")
LAST = len(STORY)
OTHER_KEY = SigningKey("audit.example", bytes(range(1, 33)))


def verified(path: Path, since: bytes | None = None, key: VerifierKey = KEY.verifier_key) -> Report:
    return verify(Verification(path, [key], since))


def first(report: Report) -> tuple[str, int | None]:
    assert not report.holds
    assert report.first is not None
    return report.first.check, report.first.position


def positions(report: Report, check: str) -> list[int | None]:
    return [finding.position for finding in report.findings if finding.check == check]


def seal(path: Path) -> None:
    """Writes the manifest anew, so that it agrees with what was done to the files."""
    manifest = read_manifest(path)
    files = tuple(replace(one, bytes=(path / one.path).stat().st_size, sha256=hash_file(path / one.path)) for one in manifest.files)
    (path / MANIFEST).write_text(replace(manifest, files=files).to_json(), encoding="utf-8")


def rewrite(path: Path, change: Callable[[list[bytes]], Iterable[bytes]]) -> None:
    """Changes the serialized entries of the first segment."""
    segment = path / "entries/00000001.bin"
    raws = [raw for _, raw in frames(segment.read_bytes())]
    segment.write_bytes(b"".join(varint(len(raw)) + raw for raw in change(raws)))
    seal(path)


def forged(position: int, change: Callable[[log_pb2.Entry], object], log: Sequence[log_pb2.Entry] = STORY) -> list[log_pb2.Entry]:
    """A log in which an entry is changed and every hash from it on recomputed."""
    return rehash([*log[: position - 1], changed(log[position - 1], change), *log[position:]], position)


def flip(field: str) -> Callable[[log_pb2.Entry], None]:
    def change(entry: log_pb2.Entry) -> None:
        value = bytearray(getattr(entry, field))
        value[-1] ^= 1
        setattr(entry, field, bytes(value))

    return change


# ---------------------------------------------------------------- what nobody touched


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4", "v5", "v6"])
def test_an_untouched_history_holds(version: str, tmp_path: Path) -> None:
    log = golden(version)
    report = verified(bundle(tmp_path / "b", log, sizes=[size for size in (1, 7, 31, 32, 33) if size < len(log)] + [len(log)]))
    assert report.holds, report.findings
    assert report.checked == list(CHECKS)
    assert report.decisions_recomputed == report.entries == len(log)
    assert sum(row["balance_minor"] for row in report.trial_balance) == 0


def test_the_histories_have_every_type_that_is_decided_again() -> None:
    kept = {entry.type for version in ("v2", "v3", "v4") for entry in golden(version)}
    assert kept == set(every_type()) == {*ledger_codec.READERS, *referral_codec.READERS}
    assert {entry.type for entry in STORY} >= FOLLOWING


@pytest.mark.parametrize("size", [1, 2, 4, 16, 64, 128])
def test_how_entries_are_cut_into_segments_does_not_matter(size: int, tmp_path: Path) -> None:
    report = verified(bundle(tmp_path / "b", STORY, sizes=range(1, LAST + 1), segment_entries=size))
    assert report.holds, report.findings


# ---------------------------------------------------------------- bytes, order, length


@pytest.mark.parametrize("field", ["fact", "decision", "hash", "previous_hash"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_flipped_bit_is_found_where_it_is(field: str, sealed: bool, tmp_path: Path) -> None:
    path, position = bundle(tmp_path / "b", STORY), next(one for one in MOVING if one < 32)
    manifest = (path / MANIFEST).read_bytes()
    flipped = changed(STORY[position - 1], flip(field)).SerializeToString(deterministic=True)
    rewrite(path, lambda raws: [*raws[: position - 1], flipped, *raws[position:]])
    if not sealed:
        (path / MANIFEST).write_bytes(manifest)
    report = verified(path)
    assert first(report) == ("hashes and chain", position)
    assert bool(positions(report, "manifest")) is not sealed


def test_a_flipped_byte_anywhere_in_a_segment_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY[:12])
    segment = path / "entries/00000001.bin"
    whole = segment.read_bytes()
    ends: dict[int, int] = {}
    for position, (offset, raw) in enumerate(frames(whole), 1):
        ends.update(dict.fromkeys(range(offset, offset + len(varint(len(raw))) + len(raw)), position))
    for at in range(0, len(whole), 7):
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        report = verified(path)
        assert not report.holds, at
        assert report.first is not None
        assert report.first.position is not None, at
        # A broken length may swallow the entry whole, never pass for it.
        assert report.first.position == ends[at], at


def test_a_deleted_entry_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    rewrite(path, lambda raws: raws[:9] + raws[10:])
    assert first(verified(path)) == ("hashes and chain", 10)


def test_an_inserted_entry_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    rewrite(path, lambda raws: [*raws[:9], raws[4], *raws[9:]])
    assert first(verified(path)) == ("hashes and chain", 10)


def test_two_swapped_entries_are_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    rewrite(path, lambda raws: [*raws[:9], raws[10], raws[9], *raws[11:]])
    assert first(verified(path)) == ("hashes and chain", 10)


def test_two_swapped_segments_are_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    one, two = path / "entries/00000001.bin", path / "entries/00000002.bin"
    one_bytes, two_bytes = one.read_bytes(), two.read_bytes()
    one.write_bytes(two_bytes)
    two.write_bytes(one_bytes)
    seal(path)
    assert first(verified(path)) == ("hashes and chain", 1)


def test_a_segment_of_another_history_breaks_the_chain_where_it_begins(tmp_path: Path) -> None:
    other = forged(3, lambda entry: setattr(entry, "actor", "somebody else"))
    path, lie = bundle(tmp_path / "b", STORY), bundle(tmp_path / "lie", other)
    (path / "entries/00000002.bin").write_bytes((lie / "entries/00000002.bin").read_bytes())
    seal(path)
    assert first(verified(path)) == ("hashes and chain", 33)


def test_an_entry_that_says_more_than_its_hash_covers_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    # Field 100, a varint: no field of an entry.
    rewrite(path, lambda raws: [*raws[:9], raws[9] + b"\xa0\x06\x01", *raws[10:]])
    assert first(verified(path)) == ("hashes and chain", 10)


def test_a_tail_cut_off_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    segment = path / "entries/00000003.bin"
    raws = [raw for _, raw in frames(segment.read_bytes())]
    segment.write_bytes(b"".join(varint(len(raw)) + raw for raw in raws[:-2]))
    seal(path)
    assert first(verified(path)) == ("hashes and chain", LAST - 1)


def test_a_tail_cut_off_with_the_manifest_is_found_by_the_checkpoint(tmp_path: Path) -> None:
    report = verified(bundle(tmp_path / "b", STORY[:-2], notes={LAST: note(STORY, LAST)}))
    assert ("checkpoints", LAST - 1) in [(one.check, one.position) for one in report.findings]
    assert not report.holds


def test_a_tail_cut_off_with_its_checkpoints_is_found_by_one_kept_from_earlier(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY[:50])
    assert verified(path).holds
    assert first(verified(path, since=note(STORY, 60))) == ("checkpoints", 51)


def test_a_renumbered_stream_is_found(tmp_path: Path) -> None:
    position = next(entry.position for entry in STORY if entry.stream_version == 2)
    log = forged(position, lambda entry: setattr(entry, "stream_version", 3))
    assert first(verified(bundle(tmp_path / "b", log))) == ("hashes and chain", position)


@pytest.mark.parametrize("version", [0, 2**32, 2**64 - 1])
def test_a_version_that_no_stream_can_have_is_found(version: int, tmp_path: Path) -> None:
    log = forged(10, lambda entry: setattr(entry, "stream_version", version))
    assert first(verified(bundle(tmp_path / "b", log))) == ("hashes and chain", 10)


def borrowed(entry: log_pb2.Entry) -> None:
    """The same microseconds, and so the same hash, in other bytes."""
    entry.occurred_at.seconds += 1
    entry.occurred_at.nanos -= 1_000_000_000


def carried(entry: log_pb2.Entry) -> None:
    entry.recorded_at.seconds -= 1
    entry.recorded_at.nanos += 1_000_000_000


def beyond_the_calendar(entry: log_pb2.Entry) -> None:
    entry.occurred_at.seconds = 2**62


def no_time(entry: log_pb2.Entry) -> None:
    entry.ClearField("occurred_at")


@pytest.mark.parametrize("change", [borrowed, carried, beyond_the_calendar, no_time])
def test_a_time_in_bytes_that_the_hash_does_not_cover_is_found(change: Callable[[log_pb2.Entry], object], tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    written = changed(STORY[9], change).SerializeToString(deterministic=True)
    rewrite(path, lambda raws: [*raws[:9], written, *raws[10:]])
    assert first(verified(path)) == ("hashes and chain", 10)


def test_a_length_in_more_bytes_than_it_needs_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    segment = path / "entries/00000002.bin"
    whole = segment.read_bytes()
    length = varint(len(next(frames(whole))[1]))
    segment.write_bytes(length[:-1] + bytes([length[-1] | 0x80, 0]) + whole[len(length) :])
    seal(path)
    assert first(verified(path)) == ("hashes and chain", 33)


def test_times_of_recording_that_do_not_increase_are_found(tmp_path: Path) -> None:
    log = forged(10, lambda entry: entry.recorded_at.CopyFrom(STORY[8].recorded_at))
    assert first(verified(bundle(tmp_path / "b", log))) == ("hashes and chain", 10)


# ---------------------------------------------------------------- histories that chain, and are not those signed


def test_a_fork_is_found_by_the_checkpoint(tmp_path: Path) -> None:
    """Another suffix, every decision right, every hash recomputed."""
    log, other = shop(900), shop(901)
    assert log[:4] == other[:4]
    path = bundle(tmp_path / "b", other, notes={4: note(log, 4), len(log): note(log, len(log))})
    report = verified(path)
    assert [finding.check for finding in report.findings] == ["checkpoints"]
    assert f"after 4, up to {len(log)}" in report.findings[0].problem


def test_between_two_checkpoints_that_follow_each_other_the_bad_position_is_known(tmp_path: Path) -> None:
    log, other = shop(900), shop(901)
    path = bundle(tmp_path / "b", other, notes={size: note(log, size) for size in range(1, len(log) + 1)})
    assert first(verified(path)) == ("checkpoints", 5)


def test_a_history_made_anew_from_another_fact_is_found_by_a_checkpoint_kept_from_earlier(tmp_path: Path) -> None:
    """Whoever owns the database and the key can make a history in which all is consistent; but not one that was signed before."""
    log, other = shop(900), shop(901)
    path = bundle(tmp_path / "b", other)
    assert verified(path).holds
    report = verified(path, since=note(log, len(log)))
    assert [finding.check for finding in report.findings] == ["checkpoints"]


def test_a_bundle_signed_with_another_key_is_found(tmp_path: Path) -> None:
    report = verified(bundle(tmp_path / "b", STORY, notes={LAST: note(STORY, LAST, OTHER_KEY)}))
    assert [finding.check for finding in report.findings] == ["checkpoints"]
    assert "none of the trusted keys signed this" in report.findings[0].problem
    assert verified(tmp_path / "b", key=OTHER_KEY.verifier_key).holds


def test_a_checkpoint_of_another_program_is_found(tmp_path: Path) -> None:
    assert not verified(bundle(tmp_path / "b", STORY, notes={LAST: note(shop(900) + STORY, LAST)})).holds


def test_entries_that_no_checkpoint_covers_are_found(tmp_path: Path) -> None:
    assert first(verified(bundle(tmp_path / "b", STORY, sizes=[40]))) == ("checkpoints", 41)
    assert first(verified(bundle(tmp_path / "c", STORY, sizes=[]))) == ("checkpoints", 1)


# ---------------------------------------------------------------- decisions


def tampered_posting(entry: log_pb2.Entry) -> None:
    """The first two postings, or the only one, changed by a unit: what is posted still sums to zero where there are two."""
    decision = POSTING[entry.type].FromString(entry.decision)
    decision.postings[0].amount_minor += 1
    decision.postings[1].amount_minor -= 1
    entry.decision = decision.SerializeToString(deterministic=True)


MOVING = [entry.position for entry in STORY if entry.type in POSTING and POSTING[entry.type].FromString(entry.decision).postings]


def test_a_posting_changed_anywhere_is_found_though_all_is_hashed_and_signed_anew(tmp_path: Path) -> None:
    """The owner of the database and of the key: the decisions alone give it away."""
    assert len(MOVING) > 30
    for position in MOVING:
        report = verified(bundle(tmp_path / str(position), forged(position, tampered_posting)))
        assert positions(report, "decisions") == [position]
        assert first(report)[1] == position


def test_a_rewritten_decision_that_was_not_signed_anew_is_found_twice_and_named(tmp_path: Path) -> None:
    position = MOVING[5]
    path = bundle(tmp_path / "b", forged(position, tampered_posting), notes={LAST: note(STORY, LAST)})
    report = verified(path)
    assert positions(report, "checkpoints") == [None]
    assert first(report) == ("decisions", position)
    assert report.first is not None
    assert "decision.postings[0].amount_minor" in report.first.problem
    assert int(report.first.found) == int(report.first.expected) + 1


def test_a_rewritten_fact_is_found_where_a_decision_depends_on_it(tmp_path: Path) -> None:
    def dearer(entry: log_pb2.Entry) -> None:
        fact = log_pb2.OrderPaid.FromString(entry.fact)
        fact.lines[0].base_minor += 10_000
        entry.fact = fact.SerializeToString(deterministic=True)

    position = next(entry.position for entry in STORY if entry.type == "order.paid.v1" and entry.position in MOVING)
    assert first(verified(bundle(tmp_path / "b", forged(position, dearer)))) == ("decisions", position)


@pytest.mark.parametrize("version", [0, max(ENGINES) + 1, 128])
@pytest.mark.parametrize("kind", sorted(BY_ENGINE))
def test_a_decision_of_an_engine_that_nobody_knows_is_not_taken_again(kind: str, version: int, tmp_path: Path) -> None:
    def by_another(entry: log_pb2.Entry) -> None:
        told = log_pb2.PeriodClosedDecision(engine_version=version)
        entry.decision = told.SerializeToString(deterministic=True) + entry.decision[2:]

    position = next(entry.position for entry in STORY if entry.type == kind)
    report = verified(bundle(tmp_path / "b", forged(position, by_another)))
    assert first(report) == ("decisions", position)
    assert report.first is not None
    assert report.first.problem == "the decision names no engine that is known here"


def test_what_an_older_engine_began_it_goes_on_with(tmp_path: Path) -> None:
    """Told that the newest engine had decided, what an older one gave back is found."""

    def by_the_newest(entry: log_pb2.Entry) -> None:
        entry.decision = bytes((8, max(ENGINES))) + entry.decision[2:]

    log = golden("v5")
    paid = next(entry.position for entry in log if entry.type == "order.paid.v1")
    refunded = next(entry.position for entry in log if entry.type == "order.refunded.v1")
    report = verified(bundle(tmp_path / "b", forged(paid, by_the_newest, log)))
    assert first(report) == ("decisions", refunded)


@pytest.mark.parametrize("kind", sorted(FOLLOWING))
def test_what_a_command_must_bring_about_cannot_be_left_out(kind: str, tmp_path: Path) -> None:
    gone = next(entry for entry in STORY if entry.type == kind)
    later = STORY[gone.position :]
    log = rehash([*STORY[: gone.position - 1], *renumbered(later, gone.stream)], gone.position)
    report = verified(bundle(tmp_path / "b", log))
    assert positions(report, "decisions") == [gone.position]


@pytest.mark.parametrize("kind", sorted(FOLLOWING))
def test_what_only_a_command_can_bring_about_does_not_stand_alone(kind: str, tmp_path: Path) -> None:
    again = next(entry for entry in STORY if entry.type == kind)
    version = max(entry.stream_version for entry in STORY if entry.stream == again.stream) + 1
    extra = changed(again, lambda entry: setattr(entry, "stream_version", version))
    extra.recorded_at.CopyFrom(STORY[-1].recorded_at)
    extra.recorded_at.seconds += 1
    report = verified(bundle(tmp_path / "b", rehash([*STORY, extra], LAST + 1)))
    assert positions(report, "decisions") == [LAST + 1]


def test_a_bundle_may_end_among_what_one_command_drafted_and_says_so(tmp_path: Path) -> None:
    """A checkpoint may be of any size; and cutting a tail off is what checkpoints find."""
    joined = next(entry.position for entry in STORY if entry.type == "group.joined.v1")
    report = verified(bundle(tmp_path / "b", STORY[: joined - 1]))
    assert report.holds
    assert "goes on with group.joined.v1 after the end" in report.notes[0]


def test_a_fact_told_twice_is_found(tmp_path: Path) -> None:
    paid = next(entry for entry in STORY if entry.type == "order.paid.v1")
    version = max(entry.stream_version for entry in STORY if entry.stream == paid.stream) + 1
    again = changed(paid, lambda entry: setattr(entry, "stream_version", version))
    again.recorded_at.CopyFrom(STORY[-1].recorded_at)
    again.recorded_at.seconds += 1
    report = verified(bundle(tmp_path / "b", rehash([*STORY, again], LAST + 1)))
    assert positions(report, "decisions") == [LAST + 1]


def test_an_entry_of_an_unknown_type_is_found(tmp_path: Path) -> None:
    log = forged(12, lambda entry: setattr(entry, "type", "order.gifted.v1"))
    assert positions(verified(bundle(tmp_path / "b", log)), "decisions") == [12]


def test_a_release_in_spite_of_a_hold_is_found(tmp_path: Path) -> None:
    released = next(entry for entry in STORY if entry.type == "order.released.v1")
    order_id = released.stream.removeprefix("order/")
    hold = log_pb2.HoldPlaced(hold_id="h-forged", order_id=order_id, reason="dispute")
    before = STORY[released.position - 2]
    entry = changed(before, lambda one: None)
    entry.stream, entry.stream_version, entry.type, entry.decision = "hold/h-forged", 1, "hold.placed.v1", b""
    entry.fact = hold.SerializeToString(deterministic=True)
    entry.recorded_at.FromMicroseconds(before.recorded_at.ToMicroseconds() + 1)
    log = rehash([*STORY[: released.position - 1], entry, *STORY[released.position - 1 :]], released.position)
    report = verified(bundle(tmp_path / "b", log))
    assert positions(report, "decisions") == [released.position + 1]
    assert "a hold stops what is released" in [finding.problem for finding in report.findings]


# ---------------------------------------------------------------- copies, manifest


def test_a_trial_balance_that_says_otherwise_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    told = json.loads((path / "trial-balance.json").read_text())
    told["accounts"][0]["balance_minor"] += 1
    (path / "trial-balance.json").write_text(json.dumps(told))
    assert [one.check for one in verified(path).findings] == ["manifest", "trial balance"]
    seal(path)
    assert [one.check for one in verified(path).findings] == ["trial balance"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda told: told["accounts"].insert(0, {**told["accounts"][0], "balance_minor": 1}),
        lambda told: told["accounts"][0].update(balance_minor=told["accounts"][0]["balance_minor"] + 0.75),
        lambda told: told["accounts"][0].update(balance_minor=str(told["accounts"][0]["balance_minor"])),
    ],
)
def test_a_trial_balance_that_some_readers_would_read_otherwise_is_found(lie: Callable[[Any], object], tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    told = json.loads((path / "trial-balance.json").read_text())
    lie(told)
    (path / "trial-balance.json").write_text(json.dumps(told))
    seal(path)
    assert [one.check for one in verified(path).findings] == ["trial balance"]


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (lambda text: text.replace('"balance_minor": ', '"balance_minor": 1, "balance_minor": ', 1), "a name twice"),
        (lambda text: "[" * 100_000, "nested too deeply"),
        (lambda text: "[1]", "cannot be read"),
    ],
)
def test_a_trial_balance_that_is_none_is_found(lie: Callable[[str], str], says: str, tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / "trial-balance.json").write_text(lie((path / "trial-balance.json").read_text()))
    seal(path)
    [finding] = verified(path).findings
    assert finding.check == "trial balance"
    assert says in finding.problem


def test_a_currency_that_only_the_manifest_tells_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / MANIFEST).write_text(replace(read_manifest(path), currency="JPY").to_json())
    assert [(one.check, one.found) for one in verified(path).findings] == [("manifest", "JPY")]


@pytest.mark.parametrize("told", [{"old_size": 3}, {"new_size": 95}, {"old_size": 94, "new_size": 94}])
def test_a_proof_that_leads_nowhere_is_found(told: dict[str, int], tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY, consistency=(LAST + 1, []))
    proof = {**json.loads((path / "consistency.json").read_text()), **told}
    (path / "consistency.json").write_text(json.dumps(proof))
    seal(path)
    [finding] = verified(path).findings
    assert finding.check == "checkpoints"
    assert "consistency.json cannot be read" in finding.problem


def test_a_checkpoint_of_no_entries_has_the_root_of_none(tmp_path: Path) -> None:
    true = str(KEY.sign(str(checkpoint.checkpoint("audit.example/golden", 0, merkle.EMPTY_ROOT, FIRST_DAY)))).encode()
    lie = str(KEY.sign(str(checkpoint.checkpoint("audit.example/golden", 0, bytes(32), FIRST_DAY)))).encode()
    path = bundle(tmp_path / "b", STORY)
    assert verified(path, since=true).holds
    assert [one.check for one in verified(path, since=lie).findings] == ["checkpoints"]


def test_a_plan_that_says_otherwise_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    plan = next(path.glob("plans/*.json"))
    plan.write_text(plan.read_text().replace("10%", "11%"))
    seal(path)
    assert [one.check for one in verified(path).findings] == ["copies"]


@pytest.mark.parametrize("name", ["plans/000000000002.json", "checkpoints/000000000094.txt", "trial-balance.json"])
def test_a_missing_file_is_found(name: str, tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / name).unlink()
    report = verified(path)
    assert "manifest" in [finding.check for finding in report.findings]
    assert not report.holds


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / "entries/00000002.bin").unlink()
    assert first(verified(path)) == ("hashes and chain", 33)


def test_an_empty_segment_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / "entries/00000002.bin").write_bytes(b"")
    assert first(verified(path)) == ("hashes and chain", 33)


def test_what_a_forger_wrote_does_not_steer_the_terminal(tmp_path: Path) -> None:
    report = verified(bundle(tmp_path / "b", forged(12, lambda entry: setattr(entry, "type", "\x1b[2J\n"))))
    assert not report.holds
    assert all(line.isprintable() for line in report.lines())


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["manifest.json", "checkpoints/000000000094.txt", "trial-balance.json", "entries/00000001.bin", "more"])
@pytest.mark.parametrize("make", [link, os.mkfifo, lambda path: path.symlink_to(path.parent.parent)])
def test_what_is_no_plain_file_is_refused_before_it_is_read(name: str, make: Callable[[Path], None], tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / name).unlink(missing_ok=True)
    make(path / name)
    [finding] = verified(path).findings
    assert finding.problem == f"{name} is a link or a device; a bundle is plain files"


@pytest.mark.parametrize("name", ["checkpoints/000000000094.txt", "trial-balance.json", "manifest.json"])
def test_a_file_that_no_memory_holds_is_not_read_whole(name: str, tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    os.truncate(path / name, 1 << 40)
    with pytest.raises(OSError, match="has more than 10 bytes"):
        read_whole(path, name, 10)


def test_a_file_that_nothing_would_check_is_found(tmp_path: Path) -> None:
    """Named by the manifest, of the right hash: whoever reads it would believe it, because everything holds."""
    path = bundle(tmp_path / "b", STORY)
    for name in ("trial-balance.csv", "checkpoints/\0.txt", "plans/latest.json"):
        manifest = read_manifest(bundle(tmp_path / name[:3], STORY))
        (path / MANIFEST).write_text(replace(manifest, files=(*manifest.files, File(name, 1, "00"))).to_json())
        [finding] = verified(path).findings
        assert "is none of a bundle's files" in finding.problem


def test_a_file_nobody_named_is_found(tmp_path: Path) -> None:
    path = bundle(tmp_path / "b", STORY)
    (path / "plans/extra.json").write_text("{}")
    assert [one.problem for one in verified(path).findings] == ["plans/extra.json is not named by the manifest"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda told: told.pop("entries"), "entries"),
        (lambda told: told.update(format="fenrun.bundle.v9"), "this version knows"),
        (lambda told: told.update(segment_entries=33), "a power of two"),
        (lambda told: told.update(entries=0), "no entry"),
        (lambda told: told.update(entries=10**18), "are named"),
        (lambda told: told["files"][1].update(first_position=34), "expected segment"),
        (lambda told: told["files"][0].update(path="../x"), "leads out of the bundle"),
        (lambda told: told["files"].append(told["files"][0]), "twice"),
        (lambda told: told.update(entries="94"), "not a count"),
    ],
)
def test_a_manifest_that_is_none_is_refused_with_a_sentence(
    change: Callable[[dict[str, object]], object], says: str, tmp_path: Path
) -> None:
    path = bundle(tmp_path / "b", STORY)
    told = json.loads((path / MANIFEST).read_text())
    change(told)
    (path / MANIFEST).write_text(json.dumps(told))
    [finding] = verified(path).findings
    assert finding.check == "manifest"
    assert says in finding.problem


def test_what_is_no_bundle_is_refused_with_a_sentence(tmp_path: Path) -> None:
    [finding] = verified(tmp_path).findings
    assert "a bundle is a directory" in finding.problem


# ---------------------------------------------------------------- a small shop


def shop(base_minor: int) -> list[log_pb2.Entry]:
    """mei brought bo, who buys for so much."""
    log = Log()
    log.tell(EnrollMember(MemberEnrolled("mei", ""), FIRST_DAY))
    log.tell(EnrollMember(MemberEnrolled("bo", "mei"), FIRST_DAY))
    line = OrderLine(1, base_minor, 1, "tea-1", "tea", LineKind.GOODS)
    log.tell(commands.RecordOrder(OrderPaid("O1", "bo", "GBP", (line,)), FIRST_DAY))
    return log.entries


def renumbered(entries: Iterable[log_pb2.Entry], stream: str) -> list[log_pb2.Entry]:
    """The versions of a stream from which one entry was taken, without a gap."""
    return [
        changed(one, lambda entry: setattr(entry, "stream_version", entry.stream_version - 1)) if one.stream == stream else one
        for one in entries
    ]
