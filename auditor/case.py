"""A bundle, loaded: every signature, log proof and digest checked on the way in, nothing believed yet.

Proves (`load`): certificate, commitment and requests were signed by keys that the trust file allows,
are in the logs of the policy, and every file is the one that the signed manifest lists. Whoever
damaged a bundle on its way gets an error here (exit code 4) and nobody is accused; a fault in what
was validly signed becomes a finding. Does not run the model. Source: SPEC 12.2, 13.1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from auditor.files import read_file
from auditor.view import Finding
from protocol import claims as claim_lines
from protocol import envelope as dsse
from protocol import hints as hint_file
from protocol import manifest, messages, openings
from protocol.digests import sha256_hex
from protocol.errors import DigestMismatch, MalformedError, VerificationError
from protocol.log import merkle, proof
from protocol.log.policy import Policy
from protocol.logged import Logged, verify_logged
from protocol.messages.certificate import Certificate
from protocol.messages.commitment import Commitment
from protocol.messages.opening import Opening
from protocol.messages.request import Request, parse_list
from protocol.model import patch as patch_file
from protocol.model import profile as model_profile
from protocol.model import recipe as recipe_file
from protocol.model import schema as schema_file
from protocol.model.graph import Graph
from protocol.model.patch import Patch
from protocol.model.recipe import Recipe
from protocol.model.schema import InputSchema
from protocol.records import Opening as RecordOpening
from protocol.trust import Role, Trust

MAX_PROOF_FILE = proof.MAX_TLOG_PROOF
LIMITS = {
    "base": 512 << 20,
    "patched": 1 << 30,
    "schema": 64 << 20,
    "recipe": 1 << 12,
    "patch": 16 << 20,
    "patch-tensors": 1 << 30,
    "claims": claim_lines.MAX_FILE,
    "commitment": dsse.MAX_ENVELOPE,
    "request": dsse.MAX_ENVELOPE,
    "request-records": 128 << 20,
    "audit-opening": dsse.MAX_ENVELOPE,
    "opening": openings.MAX_OPENINGS_FILE,
    "predecessor": dsse.MAX_ENVELOPE,
    "predecessor-claims": claim_lines.MAX_FILE,
    hint_file.ROLE: hint_file.MAX_FILE,
}
_MANY = ("request", "request-records")
_ERASABLE = ("opening", hint_file.ROLE)
"""What says more of single records than a certificate has to: a bundle verifies without it, and proves less."""
_OTHER = 1 << 30
_ONCE = ("base", "patched", "schema", "recipe", "patch", "patch-tensors", "claims", "commitment")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCase:
    """A request of the bundle. `listed` is None if its list is not the one that its root stands for."""

    logged: Logged
    request: Request
    path: str
    listed: tuple[bytes, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredecessorCase:
    """The certificate that the bundle's one supersedes. `claims` is None if they cannot be read."""

    logged: Logged
    certificate: Certificate
    claims: tuple[claim_lines.Claim, ...] | None
    claims_root: bytes | None
    claim_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Everything on the table. Parts that a signed file should hold but doesn't are None, with a finding."""

    folder: Path
    policy: Policy
    certificate: Certificate
    certificate_logged: Logged
    manifest: manifest.Manifest
    commitment: Commitment
    commitment_logged: Logged
    requests: tuple[RequestCase, ...]
    opening: Opening | None
    opening_logged: Logged | None
    base: Graph | None
    base_sha256: str
    patched: Graph | None
    schema: InputSchema | None
    schema_sha256: str
    recipe: Recipe | None
    recipe_sha256: str
    patch: Patch | None
    patch_bytes: int
    claims: tuple[claim_lines.Claim, ...] | None
    claims_root: bytes | None
    claim_lines: tuple[bytes, ...]
    opened: tuple[RecordOpening, ...] | None
    openings_erased: bool
    hints: hint_file.Hints | None
    hostile: tuple[Finding, ...]
    claimed_requests: tuple[str, ...]
    predecessor: PredecessorCase | None = None


def read_proof(folder: Path, name: str) -> bytes | None:
    """A proof file of a bundle, report or answer; None if it is not there.

    Raises:
        MalformedError: a link, unreadable or too large.
    """
    path = folder / "proofs" / f"{name}.tlog-proof"
    if not path.is_symlink() and not path.exists():
        return None
    return read_file(path, limit=MAX_PROOF_FILE, where=f"proofs/{name}.tlog-proof")


def verify_logged_twice(
    data: bytes,
    shipped: bytes | None,
    held: bytes | None,
    *,
    roles: tuple[Role, ...],
    policy: Policy,
    trust: Trust,
    where: str,
    place: str,
) -> Logged:
    """`verify_logged` with the bundle's proof and, where the auditor's own log has the entry, with its own proof.

    What the requester or auditor logged is proven best by the log itself, whose checkpoint may have been
    cosigned since; a proof that the bundle ships is checked all the same.

    Raises:
        Error: as `verify_logged`, for either proof.
    """
    logged = verify_logged(
        data,
        shipped if shipped is not None else held,
        roles=roles,
        policy=policy,
        trust=trust,
        where=where,
        place=place,
    )
    if held is None or shipped is None:
        return logged
    return verify_logged(data, held, roles=roles, policy=policy, trust=trust, where=where, place="this auditor's log")


class _Reader:
    """Reads the listed files; what is signed but unreadable becomes a finding, what is not signed an error."""

    def __init__(self, folder: Path, listing: manifest.Manifest) -> None:
        self.folder = folder
        self.listing = listing
        self.hostile: list[Finding] = []
        self.seen: set[str] = set()

    def only(self, role: str) -> str | None:
        paths = self.listing.paths(role)
        if len(paths) == 1:
            return paths[0]
        self.accuse(f"the signed manifest lists {len(paths)} files of role {role}, not one")
        return None

    def accuse(self, message: str) -> None:
        self.hostile.append(Finding(threat="hostile-artefact", check="hygiene", message=message))

    def content(self, path: str, role: str) -> bytes | None:
        self.seen.add(path)
        entry = self.listing.entry(path)
        limit = LIMITS.get(role, _OTHER)
        if entry.size > limit:
            self.accuse(f"{path}: {entry.size} bytes, at most {limit} are accepted")
            return None
        return manifest.read_listed(self.folder, entry, limit=limit)

    def parse(self, path: str | None, role: str, read: Callable[[bytes], T]) -> tuple[T | None, bytes | None]:
        data = self.content(path, role) if path is not None else None
        if data is None:
            return None, None
        try:
            return read(data), data
        except MalformedError as error:
            self.accuse(str(error.at(str(path))))
            return None, data


def _read_rest(reader: _Reader, erased: list[str]) -> None:
    # What has no use is compared all the same: a changed byte must be noticed whatever the file is for.
    for entry in reader.listing.entries:
        if entry.role not in LIMITS:
            reader.accuse(f"{entry.path}: the signed manifest gives it the unknown role {entry.role!r}")
        elif entry.role not in _MANY and len(reader.listing.paths(entry.role)) > 1 and entry.path not in reader.seen:
            reader.accuse(f"{entry.path}: the signed manifest lists a second file of role {entry.role}")
        elif entry.role == "request-records" and entry.path not in reader.seen:
            reader.accuse(f"{entry.path}: belongs to no request")
        if entry.path not in reader.seen and entry.path not in erased:
            reader.content(entry.path, entry.role)


def _parse_schema(data: bytes) -> InputSchema:
    # A grid whose values do not come back from float32 makes regions about other inputs than the records.
    schema = schema_file.parse(data)
    schema.check()
    return schema


def _parse_list(request: Request, data: bytes) -> tuple[bytes, ...]:
    # The reader names the file.
    return parse_list(data, request, where="")


def _requests(
    reader: _Reader, policy: Policy, trust: Trust, own_proofs: Mapping[str, bytes]
) -> tuple[RequestCase, ...]:
    found: list[RequestCase] = []
    names: set[str] = set()
    lists = {path.removesuffix(".leaves.json"): path for path in reader.listing.paths("request-records")}
    for path in reader.listing.paths("request"):
        data = reader.content(path, "request")
        if data is None:
            continue
        stem = path.removesuffix(".dsse.json")
        name = f"request-{stem.rsplit('/', 1)[-1]}"
        leaf = merkle.leaf_hash(data).hex()
        # Proofs and receipts are named after requests: a second one of that name would take the first one's receipt.
        if name in names or any(leaf == other.logged.leaf for other in found):
            reader.accuse(f"{path}: another request has this file name, or is the same")
            continue
        names.add(name)
        logged = verify_logged_twice(
            data,
            read_proof(reader.folder, name),
            own_proofs.get(leaf),
            roles=("requester", "owner"),
            policy=policy,
            trust=trust,
            where=path,
            place=f"proofs/{name}.tlog-proof",
        )
        _, request = messages.read(data, Request, where=path)
        listed, _ = reader.parse(lists.get(stem), "request-records", partial(_parse_list, request))
        found.append(RequestCase(logged=logged, request=request, path=path, listed=listed))
    return tuple(found)


def _predecessor(reader: _Reader, policy: Policy, trust: Trust) -> PredecessorCase | None:
    for path in reader.listing.paths("predecessor")[:1]:
        data = reader.content(path, "predecessor")
        if data is None:
            return None
        proof_bytes = read_proof(reader.folder, "predecessor")
        if proof_bytes is None:
            raise VerificationError(
                "is missing: nothing shows that the predecessor is logged", where="proofs/predecessor.tlog-proof"
            )
        logged = verify_logged(
            data,
            proof_bytes,
            roles=("owner",),
            policy=policy,
            trust=trust,
            where=path,
            place="proofs/predecessor.tlog-proof",
        )
        try:
            _, certificate = messages.read(data, Certificate, where=path)
        except MalformedError as error:
            reader.accuse(str(error))
            return None
        listed = reader.listing.paths("predecessor-claims")
        claims, raw = reader.parse(listed[0] if listed else None, "predecessor-claims", claim_lines.parse_file)
        lines = claim_lines.split_lines(raw) if claims is not None and raw is not None else ()
        return PredecessorCase(
            logged=logged,
            certificate=certificate,
            claims=claims,
            claims_root=claim_lines.root(lines) if claims is not None else None,
            claim_count=len(lines),
        )
    return None


def load(folder: Path, *, policy: Policy, trust: Trust, own_proofs: Mapping[str, bytes] | None = None) -> Case:
    """Read and check a bundle.

    Args:
        folder: the BUNDLE.
        policy: trusted logs and witnesses.
        trust: trusted signers.
        own_proofs: proofs from the auditor's own log, by leaf hash, for what is logged there.

    Raises:
        Error: anything unsigned, or a file that differs from the signed manifest; nobody is accused.
    """
    if not folder.is_dir():
        raise MalformedError("is not a folder", where=str(folder))
    certificate_bytes = read_file(
        folder / "certificate.dsse.json", limit=dsse.MAX_ENVELOPE, where="certificate.dsse.json"
    )
    certificate_proof = read_proof(folder, "certificate")
    if certificate_proof is None:
        raise VerificationError(
            "is missing: nothing shows that the certificate is logged", where="proofs/certificate.tlog-proof"
        )
    certificate_logged = verify_logged(
        certificate_bytes,
        certificate_proof,
        roles=("owner",),
        policy=policy,
        trust=trust,
        where="certificate.dsse.json",
        place="proofs/certificate.tlog-proof",
    )
    _, certificate = messages.read(certificate_bytes, Certificate, where="certificate.dsse.json")
    raw = read_file(folder / "manifest.json", limit=manifest.MAX_MANIFEST, where="manifest.json")
    if sha256_hex(raw) != certificate.subject:
        raise DigestMismatch("differs from the manifest that the certificate was signed for", where="manifest.json")
    unread: MalformedError | None = None
    try:
        listing = manifest.parse(raw)
    except MalformedError as error:
        # The owner signed for it: that is a finding about the owner, and nothing that it lists is looked at.
        listing, unread = manifest.Manifest(entries=(), refers="", raw=raw), error
    reader = _Reader(folder, listing)
    erased = [path for role in _ERASABLE for path in listing.paths(role) if not (folder / path).exists()]
    openings_erased = any(path in erased for path in listing.paths("opening"))
    if unread is not None:
        reader.accuse(str(unread.at("manifest.json")))
    else:
        manifest.verify_only_listed(folder, listing, others=("manifest.json", "certificate.dsse.json", "proofs/"))
    paths = {role: reader.only(role) if unread is None else None for role in _ONCE}
    own_proofs = own_proofs or {}

    commitment_path = paths["commitment"] or "commitment.dsse.json"
    if paths["commitment"] is not None:
        reader.seen.add(commitment_path)
        commitment_bytes = manifest.read_listed(folder, listing.entry(commitment_path), limit=LIMITS["commitment"])
    else:
        commitment_bytes = read_file(folder / commitment_path, limit=LIMITS["commitment"], where=commitment_path)
        if merkle.leaf_hash(commitment_bytes).hex() != certificate.commitment:
            raise DigestMismatch(
                "is not listed, and not the commitment that the certificate names", where=commitment_path
            )
    commitment_proof = read_proof(folder, "commitment")
    if commitment_proof is None:
        raise VerificationError(
            "is missing: nothing shows that the commitment is logged", where="proofs/commitment.tlog-proof"
        )
    commitment_logged = verify_logged(
        commitment_bytes,
        commitment_proof,
        roles=("owner",),
        policy=policy,
        trust=trust,
        where=commitment_path,
        place="proofs/commitment.tlog-proof",
    )
    _, commitment = messages.read(commitment_bytes, Commitment, where=commitment_path)
    requests = _requests(reader, policy, trust, own_proofs)

    opening_message: Opening | None = None
    opening_logged: Logged | None = None
    for path in listing.paths("audit-opening")[:1]:
        data = reader.content(path, "audit-opening")
        if data is not None:
            opening_logged = verify_logged_twice(
                data,
                read_proof(folder, "opening"),
                own_proofs.get(merkle.leaf_hash(data).hex()),
                roles=("auditor",),
                policy=policy,
                trust=trust,
                where=path,
                place="proofs/opening.tlog-proof",
            )
            _, opening_message = messages.read(data, Opening, where=path)
    predecessor = _predecessor(reader, policy, trust)
    if unread is None:
        _verify_all_proofs_used(folder, listing)

    base, _ = reader.parse(paths["base"], "base", model_profile.parse)
    patched, _ = reader.parse(
        paths["patched"],
        "patched",
        lambda raw: model_profile.parse(raw, operators=model_profile.PATCHED, limits=model_profile.DEPLOYED),
    )
    schema, _ = reader.parse(paths["schema"], "schema", _parse_schema)
    recipe, _ = reader.parse(paths["recipe"], "recipe", recipe_file.parse)
    tensors = reader.content(paths["patch-tensors"], "patch-tensors") if paths["patch-tensors"] else None
    patch, patch_manifest = (
        reader.parse(paths["patch"], "patch", lambda raw: patch_file.parse(raw, tensors))
        if tensors is not None
        else (None, None)
    )
    claims, claim_bytes = reader.parse(paths["claims"], "claims", claim_lines.parse_file)
    lines = claim_lines.split_lines(claim_bytes) if claims is not None and claim_bytes is not None else ()
    opened: tuple[RecordOpening, ...] | None = None
    if listing.paths("opening") and not openings_erased:
        path = listing.paths("opening")[0]
        parsed, _ = reader.parse(path, "opening", lambda raw: tuple(openings.parse(raw, where=path)))
        opened = parsed
    elif not listing.paths("opening"):
        opened = ()
    hint_paths = [path for path in listing.paths(hint_file.ROLE) if path not in erased]
    hints, _ = reader.parse(hint_paths[0] if hint_paths else None, hint_file.ROLE, hint_file.parse)

    _read_rest(reader, erased)

    def listed_digest(role: str) -> str:
        path = paths[role]
        return listing.entry(path).sha256 if path is not None else ""

    return Case(
        folder=folder,
        policy=policy,
        certificate=certificate,
        certificate_logged=certificate_logged,
        manifest=listing,
        commitment=commitment,
        commitment_logged=commitment_logged,
        requests=requests,
        opening=opening_message,
        opening_logged=opening_logged,
        base=base,
        base_sha256=listed_digest("base"),
        patched=patched,
        schema=schema,
        schema_sha256=listed_digest("schema"),
        recipe=recipe,
        recipe_sha256=listed_digest("recipe"),
        patch=patch,
        patch_bytes=(len(tensors) if tensors else 0) + (len(patch_manifest) if patch_manifest else 0),
        claims=claims,
        claims_root=claim_lines.root(lines) if claims is not None else None,
        claim_lines=lines,
        opened=opened,
        openings_erased=openings_erased,
        hints=hints,
        hostile=tuple(reader.hostile),
        claimed_requests=certificate.requests,
        predecessor=predecessor,
    )


def _verify_all_proofs_used(folder: Path, listing: manifest.Manifest) -> None:
    # A proof that belongs to nothing would be a file that nobody checks.
    known = {"certificate", "commitment"}
    known |= {f"request-{path.removesuffix('.dsse.json').rsplit('/', 1)[-1]}" for path in listing.paths("request")}
    if listing.paths("audit-opening"):
        known.add("opening")
    if listing.paths("predecessor"):
        known.add("predecessor")
    for path in sorted((folder / "proofs").iterdir() if (folder / "proofs").is_dir() else ()):
        name = path.name.removesuffix(".tlog-proof")
        if name == path.name or name not in known:
            raise MalformedError("belongs to nothing in this bundle", where=f"proofs/{path.name}")
