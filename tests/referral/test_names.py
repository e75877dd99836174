"""What members are called: read by whoever has the keys, by nobody else, and by nobody at all once the key is destroyed."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from fenrun.ops.v1 import ops_pb2
from fenrun.referral.v1 import referral_pb2
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from services import composition
from services.__main__ import app
from services.kernel.decider import Draft, Entry, Repeated
from services.kernel.refusals import MasterKeyMissing, Refusal
from services.referral.domain.decide import EraseMember, NameMember, decide
from services.referral.domain.facts import MemberEnrolled, MemberErased, MemberNamed
from services.referral.domain.roster import Roster, evolve
from services.referral.names import BLOCK, Hidden, MasterKeyInvalid, MasterKeys, hide, load, new_key, reveal
from services.runtime.embedded import EmbeddedPostgres
from services.runtime.settings import Settings
from tests.given import Client, reason

FIRST, SECOND = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))
KEY = bytes(range(32))
NAME = "王小明-Zacharias"


# ---------------------------------------------------------------- hiding


@pytest.mark.parametrize("name", ["a", "王", "🍵" * 100, "x" * 61, "x" * 62, "x" * 63, " ", "'; drop table members; --"])
def test_a_hidden_name_is_read_with_its_key_and_looks_like_nothing(name: str) -> None:
    hidden = hide(KEY, "p", "ann", "n1", name)
    assert reveal(KEY, "p", "ann", "n1", hidden) == name
    assert name.encode() not in b"".join(hidden) or len(name) == 1
    again = hide(KEY, "p", "ann", "n1", name)
    assert again.mac == hidden.mac
    assert again.nonce != hidden.nonce
    assert again.ciphertext != hidden.ciphertext


def test_a_ciphertext_does_not_tell_how_long_a_name_is() -> None:
    lengths = {len(hide(KEY, "p", "ann", "n1", "x" * length).ciphertext) for length in range(1, BLOCK - 1)}
    assert lengths == {BLOCK + 16}


def test_a_name_is_bound_to_key_program_member_and_naming_and_every_bit_of_it_counts() -> None:
    hidden = hide(KEY, "p", "ann", "n1", NAME)
    where = ("p", "ann", "n1")
    wrong: list[tuple[bytes, tuple[str, str, str], Hidden]] = [
        (new_key(), where, hidden),
        (KEY, ("q", "ann", "n1"), hidden),
        (KEY, ("p", "bob", "n1"), hidden),
        (KEY, ("p", "ann", "n2"), hidden),
        # The lengths keep texts apart.
        (KEY, ("pa", "nn", "n1"), hidden),
        (KEY, where, hidden._replace(nonce=bytes(12))),
    ]
    for at in range(len(hidden.ciphertext)):
        changed = bytearray(hidden.ciphertext)
        changed[at] ^= 1
        wrong.append((KEY, where, hidden._replace(ciphertext=bytes(changed))))
    for key, ids, value in wrong:
        with pytest.raises(InvalidTag):
            reveal(key, *ids, value)


def test_the_mac_of_a_name_says_nothing_without_the_key_and_differs_by_naming() -> None:
    macs = {hide(key, "p", "ann", naming, NAME).mac for key in (KEY, bytes(32)) for naming in ("n1", "n2")}
    assert len(macs) == 4


def test_a_wrapped_key_is_unwrapped_by_its_master_key_for_its_member_alone() -> None:
    both, second = MasterKeys.parse([FIRST, SECOND]), MasterKeys.parse([SECOND])
    wrapped = both.wrap("p", "ann", KEY)
    assert both.unwrap("p", "ann", both.current.id, wrapped) == KEY
    with pytest.raises(InvalidTag):
        both.unwrap("p", "bob", both.current.id, wrapped)
    with pytest.raises(MasterKeyMissing, match=both.current.id):
        second.unwrap("p", "ann", both.current.id, wrapped)
    assert KEY not in wrapped
    assert FIRST not in repr(both)
    assert repr(bytes([1]) * 32) not in repr(both)


@pytest.mark.parametrize("text", ["", "# nothing", "short", base64.b64encode(bytes(31)).decode(), "!" * 44, f"{FIRST}\nnonsense"])
def test_what_is_no_master_key_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(MasterKeyInvalid, match="openssl rand -base64 32") as caught:
        MasterKeys.parse(text.splitlines())
    assert len(text) < 40 or text[:40] not in str(caught.value)


def test_a_master_key_file_holds_keys_and_comments_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "master.key"
    path.write_text(f"# of 2026\n{SECOND}  # since March\n\n{FIRST}\n", encoding="utf-8")
    path.chmod(0o640)
    assert [key.id for key in load(path).keys] == [MasterKeys.parse([one]).current.id for one in (SECOND, FIRST)]
    path.chmod(0o644)
    with pytest.raises(MasterKeyInvalid, match="make it 0600"):
        load(path)
    with pytest.raises(MasterKeyInvalid, match="No such file"):
        load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"master_key": SecretStr("nonsense")}, "FENRUN_MASTER_KEY: line 1 is not"),
        ({"master_key": SecretStr(FIRST), "master_key_file": Path("x")}, "not both"),
        ({"master_key_file": Path("/absent/key")}, "master key file /absent/key"),
    ],
)
def test_a_server_does_not_start_with_a_master_key_that_it_cannot_use(given: dict[str, object], why: str) -> None:
    with pytest.raises(composition.CannotServe, match=why) as caught:
        composition.master_keys(Settings(**given))  # type: ignore[arg-type]
    assert FIRST not in str(caught.value)


# ---------------------------------------------------------------- deciding


def roster_with(*facts: tuple[str, object]) -> Roster:
    """After these (stream, fact), each a microsecond after the one before."""
    roster = Roster()
    for position, (stream, fact) in enumerate(facts, 1):
        evolve(roster, Entry(position, stream, 1, position, position, bytes(32), fact, None))
    return roster


ENROLLED, NAMED = ("member/ann", MemberEnrolled("ann", "")), ("member/ann", MemberNamed("n1", "ann", b"mac", b"nonce", b"hidden"))
ERASED = ("member/ann", MemberErased("ann", "asked", "zhao"))


def naming(mac: bytes = b"mac", naming_id: str = "n1", member_id: str = "ann", at_us: int = 2) -> NameMember:
    return NameMember(MemberNamed(naming_id, member_id, mac, mac and b"other nonce", mac and b"other hidden"), at_us)


def test_the_same_name_hidden_anew_is_the_same_fact() -> None:
    answer = decide(roster_with(ENROLLED, NAMED), naming())
    assert isinstance(answer, Repeated)
    assert answer.entry.fact == NAMED[1]


@pytest.mark.parametrize("erased", [False, True])
@pytest.mark.parametrize(
    ("command", "why"),
    [
        (naming(at_us=3), "ID_REUSED: occurred_at"),
        (replace(naming(), fact=replace(naming().fact, member_id="bob")), "ID_REUSED: member_id"),
        (naming(naming_id="n9", member_id="zoe"), "MEMBER_UNKNOWN"),
    ],
)
def test_what_else_differs_is_refused_before_and_after_the_erasure(command: NameMember, why: str, erased: bool) -> None:
    roster = roster_with(ENROLLED, NAMED, *([ERASED] if erased else []))
    with pytest.raises(Refusal) as caught:
        decide(roster, command)
    assert ": ".join(filter(None, (caught.value.reason, caught.value.metadata.get("field", "")))).startswith(why)


def test_another_name_under_the_same_id_is_refused_without_telling_either() -> None:
    with pytest.raises(Refusal, match="display_name is 'another name' there and 'this one' here") as caught:
        decide(roster_with(ENROLLED, NAMED), naming(b"else"))
    assert caught.value.reason == "ID_REUSED"


@pytest.mark.parametrize("mac", [b"", b"mac", b"else"])
def test_after_the_erasure_a_repeat_has_its_first_receipt_whatever_the_name_and_nothing_new_is_named(mac: bytes) -> None:
    roster = roster_with(ENROLLED, NAMED, ERASED)
    answer = decide(roster, naming(mac))
    assert isinstance(answer, Repeated)
    assert answer.entry.position == 2
    with pytest.raises(Refusal) as caught:
        decide(roster, naming(mac, naming_id="n2"))
    assert caught.value.reason == "MEMBER_ERASED"


def test_an_erasure_counts_once_whenever_and_why_ever_it_is_asked_again() -> None:
    erase = EraseMember(MemberErased("ann", "another reason", "li"), 99)
    answer = decide(roster_with(ENROLLED, NAMED, ERASED), erase)
    assert isinstance(answer, Repeated)
    assert answer.entry.position == 3
    assert decide(roster_with(ENROLLED), erase) == [Draft("member/ann", erase.fact, None, 99, "erasure/ann")]
    with pytest.raises(Refusal) as caught:
        decide(Roster(), erase)
    assert caught.value.reason == "MEMBER_UNKNOWN"


# ---------------------------------------------------------------- on servers


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A database of these tests' own: they rotate master keys, which are those of all programs, and look into its files."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("names") / "data", durable=False) as running:
        yield running


@pytest.fixture(scope="module")
def channel(database: EmbeddedPostgres) -> Iterator[grpc.Channel]:
    with serving(database, FIRST) as opened:
        yield opened


@contextmanager
def serving(database: EmbeddedPostgres, *keys: str) -> Iterator[grpc.Channel]:
    """A server with these master keys."""
    given = SecretStr(" ".join(keys)) if keys else None
    with ExitStack() as closing:
        server = closing.enter_context(composition.start(Settings(dsn=database.dsn, master_key=given)))
        yield closing.enter_context(grpc.insecure_channel(server.address))


def rows_of_everything(dsn: str) -> list[str]:
    """Every row of every table, as text; bytes in it are hex."""
    with psycopg.connect(dsn) as owner:
        tables = owner.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert ("referral.member_keys",) in tables
        return [text for (table,) in tables for (text,) in owner.execute(f"select t::text from {table} t".encode()).fetchall()]


def files_of(database: EmbeddedPostgres) -> Iterator[tuple[Path, bytes]]:
    """Every file of the database with what is in it, write-ahead log included."""
    with psycopg.connect(database.dsn, autocommit=True) as owner:
        owner.execute("checkpoint")
    for path in database.data_dir.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def key_of(dsn: str, member_id: str, program_id: str) -> tuple[str, bytes] | None:
    with psycopg.connect(dsn) as owner:
        return owner.execute(
            "select master_id, wrapped from referral.member_keys where program_id = %s and member_id = %s", [program_id, member_id]
        ).fetchone()


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return reason(caught.value)[1]


def hashes(client: Client) -> list[bytes]:
    return [entry.hash for entry in client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=client.program_id)).entries]


def test_a_name_is_set_read_set_anew_and_erased_and_nothing_that_was_recorded_changes(client: Client, database: EmbeddedPostgres) -> None:
    client.enroll("ann")
    assert client.named("ann") == ("none", "")
    first = client.name("n1", "ann", "Ann")
    assert client.named("ann") == ("named", "Ann")
    client.name("n2", "ann", NAME, at=3)
    assert client.named("ann") == ("named", NAME)
    before = hashes(client)

    def nowhere() -> bool:
        encoded = NAME.encode()
        in_rows = [row for row in rows_of_everything(database.dsn) if NAME in row or encoded.hex() in row]
        in_files = [path for path, content in files_of(database) if encoded in content]
        return not in_rows and not in_files

    assert nowhere()
    assert key_of(database.dsn, "ann", client.program_id) is not None
    receipt = client.erase("ann", at=4).receipt
    assert client.named("ann") == ("erased", "")
    assert key_of(database.dsn, "ann", client.program_id) is None
    assert hashes(client) == [*before, receipt.entry_hash]
    assert client.differences() == []
    assert nowhere()
    # Told again, by a queue that knows of no erasure: the first receipts, and no key comes back.
    assert client.name("n1", "ann", "Ann").receipt.entry_hash == first.receipt.entry_hash
    assert client.name("n1", "ann", "Somebody else").receipt.already_recorded
    assert refused(lambda: client.name("n3", "ann", "Ann")) == "MEMBER_ERASED"
    again = client.erase("ann", at=9, reason="once more").receipt
    assert (again.entry_hash, again.already_recorded) == (receipt.entry_hash, True)
    assert key_of(database.dsn, "ann", client.program_id) is None
    assert hashes(client) == [*before, receipt.entry_hash]


def test_the_search_for_a_name_would_find_it(database: EmbeddedPostgres) -> None:
    """So that finding nothing means something."""
    marker = "not-hidden-3f9c0a1b2c4d"
    with psycopg.connect(database.dsn) as owner:
        owner.execute("create table public.careless (note text, bytes bytea)")
        owner.execute("insert into public.careless values (%s, %s)", [marker, marker.encode()])
    rows = rows_of_everything(database.dsn)
    assert any(marker in row and marker.encode().hex() in row for row in rows)
    assert any(marker.encode() in content for _, content in files_of(database))


def test_binding_balance_and_tier_of_an_erased_member_stay(client: Client) -> None:
    client.enroll("ann")
    client.enroll("bob", "ann")
    client.erase("bob")
    member = client.referral.GetMember(referral_pb2.GetMemberRequest(program_id=client.program_id, member_id="bob")).member
    assert member.referrer_id == "ann"
    client.touch("t1", "bob", "ann", at=3)


def test_what_cannot_be_named_is_refused_with_its_reason(client: Client) -> None:
    client.enroll("ann")
    client.name("n1", "ann", "Ann")
    other = Client(f"{client.program_id}-absent", client.ledger, client.referral, client.ops, client.statistics)
    found = {
        "other name": refused(lambda: client.name("n1", "ann", "Anna")),
        "other time": refused(lambda: client.name("n1", "ann", "Ann", at=2)),
        "nobody": refused(lambda: client.name("n2", "zoe", "Zoe")),
        "nobody is read": refused(lambda: client.named("zoe")),
        "nobody is erased": refused(lambda: client.erase("zoe")),
        "empty": refused(lambda: client.name("n2", "ann", "")),
        "too long": refused(lambda: client.name("n2", "ann", "x" * 101)),
        "two lines": refused(lambda: client.name("n2", "ann", "a\nb")),
        "no program": refused(lambda: other.name("n1", "ann", "Ann")),
    }
    expected = {
        **dict.fromkeys(("other name", "other time"), "ID_REUSED"),
        **dict.fromkeys(("nobody", "nobody is read", "nobody is erased"), "MEMBER_UNKNOWN"),
        **dict.fromkeys(("empty", "too long", "two lines"), "MALFORMED"),
        "no program": "PROGRAM_UNKNOWN",
    }
    assert found == expected
    client.name("n3", "ann", "👩‍👩‍👧 de l'Étoile", at=3)
    assert client.named("ann") == ("named", "👩‍👩‍👧 de l'Étoile")


def test_without_a_master_key_names_are_refused_and_everything_else_works(client: Client, database: EmbeddedPostgres) -> None:
    client.enroll("ann")
    client.enroll("bob")
    client.name("n1", "ann", "Ann")
    with serving(database) as opened:
        bare = Client.of(opened, client.program_id)
        assert refused(lambda: bare.name("n2", "ann", "Ann")) == "MASTER_KEY_MISSING"
        assert refused(lambda: bare.named("ann")) == "MASTER_KEY_MISSING"
        assert bare.named("bob") == ("none", "")
        bare.enroll("cho", "ann")
        bare.erase("ann")
        assert bare.named("ann") == ("erased", "")
        assert bare.name("n1", "ann", "Ann").receipt.already_recorded
        assert refused(lambda: bare.name("n2", "ann", "Ann")) == "MEMBER_ERASED"
        request = referral_pb2.RewrapMemberKeysRequest()
        assert refused(lambda: bare.referral.RewrapMemberKeys(request)) == "MASTER_KEY_MISSING"
        assert bare.differences() == []
    assert client.named("ann") == ("erased", "")


def test_a_master_key_is_rotated_and_what_a_backup_brought_back_is_destroyed(client: Client, database: EmbeddedPostgres) -> None:
    for member in ("ann", "bob", "cho"):
        client.enroll(member)
        client.name(f"n-{member}", member, f"name of {member}")
    with psycopg.connect(database.dsn) as owner:
        kept = owner.execute("select * from referral.member_keys where program_id = %s", [client.program_id]).fetchall()
    client.erase("bob")
    with psycopg.connect(database.dsn) as owner, owner.cursor() as cursor:
        # The keys of an older backup are restored beside the newer log.
        cursor.executemany("insert into referral.member_keys values (%s, %s, %s, %s) on conflict do nothing", kept)
        cursor.execute("delete from referral.member_keys where program_id = %s and member_id = 'cho'", [client.program_id])
    assert client.named("bob") == ("erased", "")
    assert client.named("cho") == ("lost", "")
    assert key_of(database.dsn, "bob", client.program_id) is not None
    first, second = MasterKeys.parse([FIRST]).current.id, MasterKeys.parse([SECOND]).current.id
    with serving(database, SECOND, FIRST) as opened:
        both = Client.of(opened, client.program_id)
        assert both.named("ann") == ("named", "name of ann")
        answer = both.referral.RewrapMemberKeys(referral_pb2.RewrapMemberKeysRequest())
        assert (answer.master_id, answer.destroyed, answer.unreadable) == (second, 1, 0)
        assert answer.rewrapped >= 1
        again = both.referral.RewrapMemberKeys(referral_pb2.RewrapMemberKeysRequest())
        assert (again.rewrapped, again.destroyed, again.unreadable) == (0, 0, 0)
    assert key_of(database.dsn, "bob", client.program_id) is None
    moved = key_of(database.dsn, "ann", client.program_id)
    assert moved is not None
    assert moved[0] == second
    with serving(database, SECOND) as opened:
        after = Client.of(opened, client.program_id)
        assert after.named("ann") == ("named", "name of ann")
        assert after.name("n-ann", "ann", "name of ann").receipt.already_recorded
        # Lost is not erased: named anew, with a new key, cho has a name again.
        after.name("n-cho-2", "cho", "Cho", at=5)
        assert after.named("cho") == ("named", "Cho")
    # The server with the former key alone says which one it lacks, and then gets its keys back for the tests to come.
    assert refused(lambda: client.named("ann")) == "MASTER_KEY_MISSING"
    answer = client.referral.RewrapMemberKeys(referral_pb2.RewrapMemberKeysRequest())
    assert (answer.master_id, answer.rewrapped) == (first, 0)
    assert answer.unreadable >= 2
    with serving(database, FIRST, SECOND) as opened:
        Client.of(opened, client.program_id).referral.RewrapMemberKeys(referral_pb2.RewrapMemberKeysRequest())
    assert client.named("ann") == ("named", "name of ann")


def test_the_command_line_names_shows_and_erases(channel: grpc.Channel, client: Client, database: EmbeddedPostgres) -> None:
    client.enroll("ann")
    with composition.start(Settings(dsn=database.dsn, master_key=SecretStr(FIRST))) as server:
        environment = {"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": server.address}

        def run(*words: str, typed: str | None = None, program: bool = True) -> Result:
            where = ("-P", client.program_id) if program else ()
            return CliRunner().invoke(app, [*words, *where], env=environment, input=typed)

        assert run("member", "name", "show", "ann").stdout == "ann was never named\n"
        said = run("member", "name", "set", "ann", "--naming-id", "n1", typed=f"{NAME}\n")
        assert said.exit_code == 0, said.output
        assert "naming n1 of ann: recorded at position 3" in said.stdout
        assert NAME not in said.stdout
        assert run("member", "name", "show", "ann").stdout == f"{NAME}\n"
        assert json.loads(run("member", "name", "show", "ann", "--json").stdout)["display_name"] == NAME
        entries = run("entries", "--json").stdout
        assert '"naming_id":"n1"' in entries
        assert NAME not in entries
        assert "ann erased: recorded at position 4" in run("member", "erase", "ann", "--reason", "asked", "--by", "zhao").stdout
        assert run("member", "name", "show", "ann").stdout.startswith("erased at 20")
        assert "of erased members destroyed" in run("member", "rewrap-keys", program=False).stdout
        failed = run("member", "name", "set", "ann", "Ann")
        assert (failed.exit_code, "MEMBER_ERASED" in failed.stderr) == (1, True)
