"""Signed notes, checkpoints and key files: the formats' own vectors, and everything that must not be believed."""

import os
import stat
from pathlib import Path

import pytest

from services.audit import signing
from services.audit.domain.checkpoint import Checkpoint, Note, NoteMalformed, VerifierKey, checkpoint, origin_of
from services.audit.domain.merkle import EMPTY_ROOT
from services.audit.signing import KeyFileInvalid, Keys, NotTrusted, SigningKey

# From c2sp.org/signed-note.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = """This is an example message.

— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=
""".encode()
# From the documentation of golang.org/x/mod/sumdb/note.
NEUMANN_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
""".encode()

MEI = SigningKey("shop.example", bytes(range(32)))
BO = SigningKey("shop.example", bytes(range(1, 33)))
TEXT = str(checkpoint("shop.example/tea", 5, bytes(range(32)), 1_764_000_000_000_000))


def note(key: SigningKey = MEI, text: str = TEXT) -> bytes:
    return str(key.sign(text)).encode()


def test_the_format_s_own_example_verifies() -> None:
    key = VerifierKey.parse(EXAMPLE_KEY)
    assert signing.verify(Note.parse(EXAMPLE_NOTE), [key]) == [key]
    assert str(key) == EXAMPLE_KEY
    assert str(Note.parse(EXAMPLE_NOTE)).encode() == EXAMPLE_NOTE


def test_a_signing_key_signs_and_is_written_as_other_tools_do() -> None:
    key = SigningKey.parse(NEUMANN_SECRET)
    assert str(key.verifier_key) == NEUMANN_KEY
    assert key.secret_text() == NEUMANN_SECRET
    text = NEUMANN_NOTE.decode().partition("\n\n")[0] + "\n"
    assert str(key.sign(text)).encode() == NEUMANN_NOTE


def test_a_checkpoint_is_written_line_by_line() -> None:
    assert TEXT == "shop.example/tea\n5\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nmade_at 2025-11-24T16:00:00Z\n"
    opened = signing.open_checkpoint(note(), [MEI.verifier_key], "shop.example/tea")
    assert opened == Checkpoint("shop.example/tea", 5, bytes(range(32)), ("made_at 2025-11-24T16:00:00Z",))
    assert opened.made_us == 1_764_000_000_000_000
    assert str(opened) == TEXT


def test_a_checkpoint_of_the_empty_log_and_one_without_a_time_are_read() -> None:
    assert Checkpoint.parse(str(Checkpoint("a/b", 0, EMPTY_ROOT))) == Checkpoint("a/b", 0, EMPTY_ROOT)
    assert Checkpoint("a/b", 0, EMPTY_ROOT).made_us is None


# ---------------------------------------------------------------- whom to believe


def test_every_changed_byte_of_a_signed_checkpoint_is_noticed() -> None:
    whole = note()
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises((NoteMalformed, NotTrusted)):
            signing.open_checkpoint(changed, [MEI.verifier_key])


def test_a_note_cut_short_or_made_longer_is_refused() -> None:
    whole = note()
    for end in range(len(whole)):
        with pytest.raises((NoteMalformed, NotTrusted)):
            signing.open_checkpoint(whole[:end], [MEI.verifier_key])
    for more in (b"\n", b" ", b"x", b"\x00"):
        with pytest.raises(NoteMalformed):
            signing.open_checkpoint(whole + more, [MEI.verifier_key])


def test_a_note_of_another_key_is_refused_though_its_name_is_the_same() -> None:
    with pytest.raises(NotTrusted, match=r"none of the trusted keys signed this; it is signed by shop\.example \([0-9a-f]{8}\)"):
        signing.open_checkpoint(note(BO), [MEI.verifier_key])


def test_signatures_of_unknown_keys_beside_a_known_one_are_ignored() -> None:
    both = Note(TEXT, (*BO.sign(TEXT).signatures, *MEI.sign(TEXT).signatures))
    assert signing.verify(both, [MEI.verifier_key]) == [MEI.verifier_key]
    assert signing.verify(both, [MEI.verifier_key, BO.verifier_key]) == [BO.verifier_key, MEI.verifier_key]


def test_a_false_signature_in_the_name_of_a_known_key_makes_the_note_worthless() -> None:
    false = MEI.sign("something else\n").signatures[0]
    with pytest.raises(NotTrusted, match="is not of this text"):
        signing.verify(Note(TEXT, (false, *BO.sign(TEXT).signatures)), [MEI.verifier_key, BO.verifier_key])


def test_another_s_signature_under_a_known_key_s_id_is_refused() -> None:
    """The ID is short and can be forged; the signature cannot."""
    theirs = BO.sign(TEXT).signatures[0]
    posing = type(theirs)(MEI.name, MEI.verifier_key.id, theirs.value)
    with pytest.raises(NotTrusted, match="is not of this text"):
        signing.verify(Note(TEXT, (posing,)), [MEI.verifier_key])


def test_nothing_is_trusted_where_no_key_is() -> None:
    with pytest.raises(NotTrusted):
        signing.verify(Note.parse(note()), [])


def test_a_checkpoint_of_another_log_is_refused() -> None:
    with pytest.raises(NotTrusted, match=r"of the log 'shop\.example/tea', not of 'shop\.example/silk'"):
        signing.open_checkpoint(note(), [MEI.verifier_key], "shop.example/silk")


def test_a_key_vouches_only_for_logs_under_its_name() -> None:
    text = str(Checkpoint("shop.example.evil/tea", 1, bytes(32)))
    with pytest.raises(NotTrusted, match=r"does not vouch for the log 'shop\.example\.evil/tea'"):
        signing.open_checkpoint(note(text=text), [MEI.verifier_key])
    assert origin_of("shop.example", "tea") == "shop.example/tea"


# ---------------------------------------------------------------- what is not a note, a checkpoint, a key


LINE = str(MEI.sign(TEXT).signatures[0])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "an empty line"),
        (TEXT, "an empty line"),
        (f"{TEXT}{LINE}\n", "an empty line"),
        (f"{TEXT}\n", "an empty line"),
        (f"{TEXT}\n{LINE}", "end in a newline"),
        (f"{TEXT}\n{LINE}\n\n", "end in a newline"),
        (f"{TEXT}\n{LINE}\n \n", "not a signature line"),
        (f"{TEXT}\n{LINE.replace('—', '-')}\n", "not a signature line"),
        (f"{TEXT}\n{LINE.replace('— ', '—')}\n", "not a signature line"),
        (f"{TEXT}\n— shop.example\n", "not a signature line"),
        (f"{TEXT}\n—  {LINE[2:]}\n", "cannot name a key"),
        (f"{TEXT}\n{LINE.replace('shop', 'sh+op')}\n", "cannot name a key"),
        (f"{TEXT}\n{LINE}\n".replace("— shop", "— sh\u00a0op"), "cannot name a key"),
        (f"{TEXT}\n{LINE} \n", "is base64"),
        (f"{TEXT}\n{LINE[:-1]}\n", "is base64"),
        (f"{TEXT}\n{LINE.replace(' ', '  ').replace('—  ', '— ')}\n", "is base64"),
        (f"{TEXT}\n— shop.example AAAAAA==\n", "more than the 4 bytes"),
        (f"{TEXT}\r\n\n{LINE}\n", "no control characters"),
        (f"{TEXT}\t\n\n{LINE}\n", "no control characters"),
        (f"{TEXT}\n" + f"{LINE}\n" * 65, "65 signatures"),
        ("x" * 1_000_001, "too large"),
    ],
)
def test_what_is_not_a_signed_note_is_refused(data: str, why: str) -> None:
    with pytest.raises(NoteMalformed, match=why):
        Note.parse(data.encode())


def test_a_note_that_is_not_utf_8_is_refused() -> None:
    with pytest.raises(NoteMalformed, match="UTF-8"):
        Note.parse(note() + b"\xff\n")


def test_the_text_of_a_note_may_have_empty_lines() -> None:
    text = "one\n\ntwo\n"
    assert signing.verify(Note.parse(note(text=text)), [MEI.verifier_key])
    assert Note.parse(note(text=text)).text == text


ROOT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b\n5\n",
        f"\n5\n{ROOT}\n",
        f"a/b\n5\n{ROOT}",
        f"a/b\n5\n{ROOT}\n\n",
        f"a/b\n5\n\n{ROOT}\n",
        f"a/b\n05\n{ROOT}\n",
        f"a/b\n-5\n{ROOT}\n",
        f"a/b\n+5\n{ROOT}\n",
        f"a/b\n5.0\n{ROOT}\n",
        f"a/b\n 5\n{ROOT}\n",
        f"a/b\n٥\n{ROOT}\n",
        f"a/b\n{10**19}\n{ROOT}\n",
        f"a/b\n5\n{ROOT[:-1]}\n",
        f"a/b\n5\n{ROOT.replace('h8=', 'h9=')}\n",
        "a/b\n5\nAAECAw==\n",
        "a/b\n5\n_-ECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        Checkpoint.parse(text)


KEY = str(MEI.verifier_key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "shop.example",
        KEY[:-4],
        KEY[12:],
        KEY.replace("shop", "shap"),
        KEY.replace("+", "+0", 1),
        KEY.replace("+A", "+B"),
        KEY.upper(),
        f" {KEY}",
        f"{KEY}\n",
        MEI.secret_text(),
    ],
)
def test_what_is_not_a_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(NoteMalformed):
        VerifierKey.parse(text)


# ---------------------------------------------------------------- key files


def test_a_new_key_file_is_its_owner_s_alone_and_signs(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        keys = signing.create(path, "shop.example")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.signing
    assert signing.verify(keys.signing.sign("hello\n"), keys.trusted) == [keys.signing.verifier_key]


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    signing.create(path, "shop.example")
    kept = path.read_text()
    with pytest.raises(KeyFileInvalid, match="File exists"):
        signing.create(path, "shop.example")
    assert path.read_text() == kept


def test_after_a_rotation_the_new_key_signs_and_the_former_is_still_trusted(tmp_path: Path) -> None:
    path = tmp_path / "key"
    former = signing.create(path, "shop.example")
    keys = signing.rotate(path)
    keys = signing.rotate(path)
    assert len(keys.trusted) == 3
    assert former.signing
    assert keys.signing
    assert keys.signing.verifier_key == keys.trusted[-1] != former.trusted[0]
    assert signing.open_checkpoint(note(former.signing), keys.trusted)
    assert former.signing.secret_text() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


def test_a_key_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    signing.create(path, "shop.example")
    path.chmod(0o644)
    with pytest.raises(KeyFileInvalid, match="mode 0644"):
        signing.load(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no key is in it"),
        ("# nothing\n", "no key is in it"),
        (f"{MEI.secret_text()}\n{BO.secret_text()}\n", "two signing keys"),
        (f"{NEUMANN_KEY}\n{MEI.secret_text()}\n", "different names"),
        (MEI.secret_text()[:-8], "base64|Ed25519"),
        (MEI.secret_text().replace("+A", "+B"), "Ed25519"),
        (MEI.secret_text().replace("shop", "shap"), "ID of its public key"),
    ],
)
def test_what_is_wrong_with_a_key_file_is_said_without_showing_a_key(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileInvalid, match=why) as caught:
        signing.load(path)
    assert MEI.secret_text()[-44:-8] not in str(caught.value)


def test_a_file_of_verifier_keys_alone_is_enough_to_verify_with(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the shop's\n{MEI.verifier_key}\n\n{BO.verifier_key}\n")
    assert signing.load(path) == Keys(None, (MEI.verifier_key, BO.verifier_key))


def test_a_signing_key_does_not_show_its_secret_when_printed() -> None:
    assert str(MEI.seed) not in repr(MEI)
    assert "seed" not in repr(MEI)
