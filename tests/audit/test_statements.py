"""The checkpoint and proofs that a member's statement carries lead from its entries to what was signed."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from fenrun.audit.v1 import audit_pb2
from fenrun.ops.v1 import ops_pb2
from typer.testing import CliRunner

from services.__main__ import app
from services.audit.client import hash_of
from services.audit.domain.merkle import verify_inclusion
from services.audit.signing import open_checkpoint
from services.console.client import Call, Connection
from services.ledger.cli.adding_up import fetch
from services.ledger.cli.proofs import attached
from tests.audit.house import Shop


def statement(shop: Shop, *words: str) -> str:
    environment = {"COLUMNS": "80", "FENRUN_PROGRAM": None, "FENRUN_TARGET": None}
    arguments = ["statement", "A", "-P", shop.program_id, "--target", shop.address, *words]
    shown = CliRunner().invoke(app, arguments, env=environment)
    assert (shown.exit_code, shown.stderr) == (0, "")
    return shown.stdout


def test_each_entry_of_a_statement_is_proven_to_be_in_the_signed_log(shop: Shop) -> None:
    """From the entry's own bytes to the root in the note, with nothing taken from the server's word."""
    shop.sell(7)
    shop.checkpoint()
    document = json.loads(statement(shop, "--json"))
    signed = open_checkpoint(document["checkpoint"]["note"].encode(), [shop.key])
    entries = shop.client.ops.ReadEntries(ops_pb2.ReadEntriesRequest(program_id=shop.program_id, page_size=100)).entries
    assert [proof["position"] for proof in document["proofs"]] == [one["posting"]["position"] for one in document["postings"]]
    assert len(document["proofs"]) == 7
    for proof, one in zip(document["proofs"], document["postings"], strict=True):
        entry_hash = hash_of(entries[proof["position"] - 1])
        assert entry_hash.hex() == proof["entry_hash"] == one["entry_hash"]
        hashes = [bytes.fromhex(each) for each in proof["hashes"]]
        verify_inclusion(entry_hash, proof["position"] - 1, signed.size, signed.root, hashes)


class Data(HTMLParser):
    """The data in a page, and the text that is seen."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.inside, self.data, self.seen = "", "", ""
        self.scripts: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag == "script":
            self.scripts.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.data += data
        else:
            self.seen += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_shows_the_note_and_holds_the_proofs_as_data(shop: Shop, language: str) -> None:
    shop.sell(3)
    checkpoint = shop.checkpoint()
    page = Data(statement(shop, "--format", "html", "--language", language))
    assert page.scripts == [{"type": "application/json", "id": "proofs"}]
    document = json.loads(statement(shop, "--json"))
    assert json.loads(page.data) == {"checkpoint": document["checkpoint"], "proofs": document["proofs"]}
    assert checkpoint.note in page.seen


def test_entries_after_the_checkpoint_have_no_proof_and_that_is_said(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    shop.sell(2)
    covered = shop.checkpoint().size
    shop.sell(2)
    shop.checkpoint()

    class Earlier(Call):
        """Finds the earlier checkpoint to be the latest."""

        @property
        def audit(self) -> Any:
            return self

        def GetCheckpoint(self, request: audit_pb2.GetCheckpointRequest) -> audit_pb2.GetCheckpointResponse:
            request.size = covered
            return shop.audit.GetCheckpoint(request)

        def GetInclusionProof(self, request: audit_pb2.GetInclusionProofRequest) -> audit_pb2.GetInclusionProofResponse:
            return shop.audit.GetInclusionProof(request)

    call = Earlier(Connection(shop.address, at_home=True), shop.program_id, False)
    proofs = attached(call, fetch(call, "A", None, None))
    assert proofs is not None
    assert max(proofs.paths) == covered
    assert f"entries after position {covered} have no proof" in capsys.readouterr().err
