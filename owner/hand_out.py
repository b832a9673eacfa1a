"""What a bundle gives to people who run or verify models, without our own programs.

Writes `patched.onnx`, the deployable model, after composing it again and comparing, and for each claim a VNN-LIB file
with the network it is about: `instances.csv` lists them as VNN-COMP does (network, question, seconds), and
`questions.json` says which claim each is, what `unsat` means, and why a claim has none. Says nothing about whether
the claims hold. Source: SPEC 12.2; `vnnlib`.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owner import vnnlib
from owner.compose import compose
from owner.files import begin_folder, check_free_folder, finish_folder, given_up, read_file, write_atomic
from protocol import claims as claim_lines
from protocol import openings
from protocol.claims import Redirection
from protocol.errors import OwnerError
from protocol.model import patch as patch_file
from protocol.model import profile
from protocol.model.graph import Graph
from protocol.model.patch import SetHead, SketchGate
from protocol.model.schema import InputSchema
from protocol.model.schema import parse as parse_schema

_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was written.

    Args:
        questions: claims that became a question.
        without: claims that have no form as one.
        left_out: claims beyond the limit.
    """

    questions: int
    without: int
    left_out: int


def _sketch(patch: patch_file.Patch, claim: Redirection) -> tuple[SketchGate, int]:
    """The sketch that a claim is about, and the item's number in it."""
    if claim.gate != "sketch" or claim.item is None or claim.item >= patch.items:
        raise vnnlib.NoQuestion("the claim is not about an item of a sketch")
    place = patch.place(claim.item)
    part = patch.parts[place.part]
    if not isinstance(part.gate, SketchGate) or not isinstance(part.head, SetHead):
        raise vnnlib.NoQuestion("the claim is not about an item of a sketch that sets the output")
    return part.gate, place.item


def _write(folder: Path, networks: dict[str, str], graph: Graph) -> str:
    data = vnnlib.single(graph)
    digest = hashlib.sha256(data).hexdigest()
    if digest not in networks:
        networks[digest] = f"onnx/{len(networks):06}.onnx"
        write_atomic(folder / networks[digest], data)
    return networks[digest]


def hand_out(bundle: Path, *, out: Path, limit: int, force: bool) -> Outcome:
    """Write the deployable model and the questions of a bundle.

    Args:
        bundle: a bundle's folder, with the opened records.
        out: the folder to write.
        limit: at most so many claims, in their order.
        force: overwrite `out`.

    Raises:
        OwnerError: a file is missing or unreadable, or the deployed model is not the composition.
        MalformedError: a file of the bundle is not what it should be.
    """
    check_free_folder(out, force=force)
    base = profile.parse(read_file(bundle / "base.onnx"))
    schema = parse_schema(read_file(bundle / "schema.json"))
    patch = patch_file.parse(read_file(bundle / "patch.json"), read_file(bundle / "patch.safetensors"))
    deployed = read_file(bundle / "patched.onnx")
    composed = compose(base, schema, patch)
    if profile.serialise(composed) != deployed:
        raise OwnerError("is not the composition of base, schema and patch", where=str(bundle / "patched.onnx"))
    claims = claim_lines.parse_file(read_file(bundle / "claims.jsonl"))
    opened = {one.commitment: one.values for one in openings.parse(read_file(bundle / "openings.npz"))}
    redirections = [(line, claim) for line, claim in enumerate(claims, start=1) if isinstance(claim, Redirection)]
    partial = begin_folder(out)
    with given_up(partial):
        write_atomic(partial / "patched.onnx", deployed)
        networks: dict[str, str] = {}
        instances, listing = [], []
        for line, claim in redirections[:limit]:
            entry: dict[str, object] = {"claim": line, "record": claim.record.hex(), "gate": claim.gate}
            try:
                network, question = _question(composed, patch, claim, opened.get(claim.record), schema)
            except vnnlib.NoQuestion as reason:
                listing.append(entry | {"none": reason.message})
                continue
            place = f"vnnlib/{line:06}.vnnlib"
            model = _write(partial, networks, network)
            write_atomic(partial / place, question.text().encode("ascii"))
            instances.append(f"{model},{place},{_SECONDS}\n")
            listing.append(entry | {"network": model, "question": place, "unsat": question.meaning})
        write_atomic(partial / "instances.csv", "".join(instances).encode())
        write_atomic(partial / "questions.json", json.dumps(listing, indent=1, sort_keys=True).encode() + b"\n")
    finish_folder(out)
    asked = min(limit, len(redirections))
    return Outcome(questions=len(instances), without=asked - len(instances), left_out=len(redirections) - asked)


def _question(
    composed: Graph,
    patch: patch_file.Patch,
    claim: Redirection,
    values: np.ndarray | None,
    schema: InputSchema,
) -> tuple[Graph, vnnlib.Question]:
    if values is None or len(values) != schema.features:
        raise vnnlib.NoQuestion("the record is not opened in the bundle")
    if claim.gate == "none":
        return vnnlib.model_network(composed, claim), vnnlib.model_question(claim, values, schema, composed.classes)
    gate, number = _sketch(patch, claim)
    return vnnlib.sketch_network(gate), vnnlib.sketch_question(gate, number, claim, values, schema)
