"""Checkpoints against the roots that the bundle's own entries give. The signatures are all that an auditor has to believe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.audit.domain.checkpoint import LARGEST_NOTE, Checkpoint, NoteMalformed, VerifierKey
from services.audit.domain.merkle import ProofInvalid, verify_consistency
from services.audit.signing import NotTrusted, open_checkpoint
from services.auditor.bundle import File, Manifest, parse_json, read_whole
from services.auditor.verifying.report import Finding

CHECK = "checkpoints"
FOLDER = "checkpoints"
# From all entries of the bundle to a checkpoint of more of them.
CONSISTENCY = "consistency.json"


@dataclass(slots=True)
class Signed:
    """Checkpoints whose signatures hold, smallest first, and what was found wrong with others. `name`: the file, or who gave it."""

    checkpoints: list[tuple[str, Checkpoint]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    proof: dict[str, Any] | None = None

    @property
    def sizes(self) -> list[int]:
        return sorted({checkpoint.size for _, checkpoint in self.checkpoints})

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [
            {"from": name, "origin": one.origin, "size": one.size, "root_hash": one.root.hex(), "lines": list(one.extensions)}
            for name, one in self.checkpoints
        ]


def read(bundle: Path, manifest: Manifest, trusted: Sequence[VerifierKey], since: bytes | None) -> Signed:
    """Opens every checkpoint of the bundle, and the one kept from earlier."""
    signed = Signed()
    texts = [(file.path, _bytes(bundle, file)) for file in manifest.under(FOLDER)]
    if since is not None:
        texts.append(("the checkpoint kept from earlier", since))
    origins = {f"{key.name}/{manifest.program_id}" for key in trusted}
    for name, text in texts:
        if text is None:
            continue  # the manifest's check says that it is missing
        try:
            checkpoint = open_checkpoint(text, trusted)
            if checkpoint.origin not in origins:
                raise NotTrusted(f"it is of the log {checkpoint.origin!r}, not of {' or '.join(sorted(origins))!r}")
        except (NoteMalformed, NotTrusted) as problem:
            signed.findings.append(Finding(CHECK, None, f"{name}: {problem}"))
            continue
        signed.checkpoints.append((name, checkpoint))
    signed.checkpoints.sort(key=lambda one: one[1].size)
    proof = next((file for file in manifest.files if file.path == CONSISTENCY), None)
    text = _bytes(bundle, proof) if proof else None
    if text is not None:
        try:
            told = parse_json(text)
            if told["old_size"] != manifest.entries:
                raise ValueError(f"old_size is {told['old_size']!r}, and the bundle has {manifest.entries} entries")
            signed.proof = {"new_size": told["new_size"], "hashes": [bytes.fromhex(one) for one in told["hashes"]]}
            if told["new_size"] not in [one.size for _, one in signed.checkpoints if one.size > manifest.entries]:
                raise ValueError(f"new_size is {told['new_size']!r}, and no checkpoint beyond the bundle is of so many entries")
        except (ValueError, KeyError, TypeError) as problem:
            signed.findings.append(Finding(CHECK, None, f"{CONSISTENCY} cannot be read: {type(problem).__name__}: {problem}"))
    return signed


def check(signed: Signed, manifest: Manifest, roots: Mapping[int, bytes]) -> list[Finding]:
    """What of the checkpoints the entries do not bear out. Every entry must stand under some signature."""
    found = list(signed.findings)
    held = 0
    for name, checkpoint in signed.checkpoints:
        if checkpoint.size > manifest.entries:
            finding = _beyond(name, checkpoint, signed, manifest, roots)
        elif roots[checkpoint.size] != checkpoint.root:
            problem = (
                f"{name}: the entries are not those that were signed; the first that differs stands after {held}, up to {checkpoint.size}"
            )
            # Between two sizes that follow each other there is but one entry.
            position = checkpoint.size if checkpoint.size == held + 1 else None
            finding = Finding(CHECK, position, problem, f"root {checkpoint.root.hex()}", roots[checkpoint.size].hex())
        else:
            finding, held = None, max(held, checkpoint.size)
        if finding is not None:
            found.append(finding)
            break  # every larger one differs as well
        if checkpoint.size > manifest.entries:
            held = manifest.entries
    if not found and held < manifest.entries:
        problem = f"no checkpoint covers the entries after {held}"
        found.append(Finding(CHECK, held + 1, problem, f"a checkpoint of at least {manifest.entries} entries", "none"))
    return found


def _beyond(name: str, checkpoint: Checkpoint, signed: Signed, manifest: Manifest, roots: Mapping[int, bytes]) -> Finding | None:
    """A checkpoint of more entries than there are holds for these if a proof leads from their root to its own."""
    size = manifest.entries
    if signed.proof is None or signed.proof["new_size"] != checkpoint.size:
        problem = f"{name} is of more entries than there are, and no proof leads to it"
        return Finding(CHECK, size + 1, problem, f"{checkpoint.size} entries", f"{size}")
    try:
        verify_consistency(size, roots[size], checkpoint.size, checkpoint.root, signed.proof["hashes"])
    except ProofInvalid as problem:
        return Finding(CHECK, None, f"{name}: the entries are not the beginning of what was signed: {problem}")
    return None


def _bytes(bundle: Path, file: File) -> bytes | None:
    try:
        return read_whole(bundle, file.path, LARGEST_NOTE)
    except OSError:
        return None
