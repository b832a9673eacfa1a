"""Messages of the Open Inference Protocol v2 in JSON: one record asked, one row of logits answered.

Proves: an answer that parses names the model (and the version) that was asked for, holds exactly one FP32 tensor of
one row with a finite float32 for each class, and no field that the protocol does not have. Assumes nothing about the
sender; whoever calls has limited the size. Does not say who answered: answers are not signed.
Source: Open Inference Protocol v2, REST, "Inference Request/Response JSON Object", "Tensor Data".
"""

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float32

from protocol.errors import MalformedError, Schema

ENVELOPE_BYTES = 16_384
NUMBER_BYTES = 64
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Logits that an endpoint answered, and the version that it says it answered with."""

    logits: Float32[np.ndarray, " class"]
    version: str | None


def limit(classes: int) -> int:
    """Largest answer that is read, in bytes."""
    return ENVELOPE_BYTES + NUMBER_BYTES * classes


def request(record: Float32[np.ndarray, "..."], *, name: str) -> bytes:
    """The body that asks for one record; every float32 is written so that it is read back exactly."""
    tensor = {
        "name": name,
        "shape": [1, *record.shape],
        "datatype": "FP32",
        "data": [float(value) for value in record.reshape(-1)],
    }
    return json.dumps({"inputs": [tensor]}, allow_nan=False, separators=(",", ":")).encode()


def _constant(text: str) -> NoReturn:
    raise Schema(f"{text} is not a number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Schema("a key occurs twice in one object")
    return found


def parse_json(data: bytes) -> Any:
    """One JSON value; no duplicate keys, no NaN, not deep.

    Raises:
        MalformedError: not that.
    """
    try:
        text = data.decode("utf-8")
        # Counted on the text, strings included: no answer of this protocol comes near the limit.
        if text.count("{") > 1000 or text.count("[") > 100_000:
            raise Schema("too many objects or arrays")
        value = json.loads(text, parse_constant=_constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise MalformedError(f"is not JSON: {reason}") from None
    if _depth(value) > _MAX_DEPTH:
        raise Schema(f"nested more than {_MAX_DEPTH} deep")
    return value


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += one.values()
            elif isinstance(one, list):
                inner += one
        level = [one for one in inner if isinstance(one, (dict, list))]
        depth += 1
    return depth


def _fields(value: Any, what: str, required: set[str], optional: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Schema(f"{what} is not an object")
    if missing := required - set(value):
        raise Schema(f"{what} has no {min(missing)}")
    if unknown := set(value) - required - optional:
        raise Schema(f"{what} has a field {min(unknown)[:40]!r} that the protocol does not have")
    if not isinstance(value.get("parameters") or {}, dict):
        raise Schema(f"{what}: parameters is not an object")
    return value


def _short(value: Any, what: str) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > 200):
        raise Schema(f"{what} is not a short text")
    return value


def _numbers(data: Any) -> list[Any]:
    # Row-major, flat or nested: the protocol allows both.
    found = [data]
    while found and any(isinstance(one, list) for one in found):
        if not all(isinstance(one, list) for one in found):
            raise Schema("data mixes numbers and arrays")
        found = [inner for one in found for inner in one]
    return found


def _row(tensor: Any, *, name: str, classes: int) -> Float32[np.ndarray, " class"]:
    fields = _fields(tensor, "the output", {"name", "shape", "datatype", "data"}, {"parameters"})
    if fields["name"] != name:
        raise Schema(f"the output is named {str(fields['name'])[:40]!r}, not {name[:40]!r}")
    if fields["datatype"] != "FP32":
        raise Schema(f"the output is of {str(fields['datatype'])[:40]!r}, not FP32")
    shape = fields["shape"]
    if not isinstance(shape, list) or any(type(axis) is not int for axis in shape) or shape != [1, classes]:
        raise Schema(f"the output's shape is {str(shape)[:40]}, not [1, {classes}]")
    if not isinstance(fields["data"], list):
        raise Schema("data is not an array")
    numbers = _numbers(fields["data"])
    if len(numbers) != classes:
        raise Schema(f"{len(numbers)} numbers for {classes} classes")
    if any(type(number) not in (int, float) for number in numbers):
        raise Schema("data holds something that is not a number")
    try:
        exact = [float(number) for number in numbers]
    except OverflowError:
        exact = [math.inf]
    with np.errstate(over="ignore"):
        row = np.array(exact, dtype=np.float64).astype(np.float32)
    if not np.isfinite(row).all():
        raise Schema("a number is beyond float32")
    return row


def answer(data: bytes, *, model: str, output: str, classes: int) -> Answer:
    """Read an answer to one record.

    Args:
        data: the body.
        model: the name that was asked for.
        output: the output tensor's name.
        classes: how many logits.

    Raises:
        MalformedError: not an answer to that.
    """
    fields = _fields(parse_json(data), "the answer", {"model_name", "outputs"}, {"model_version", "id", "parameters"})
    if fields["model_name"] != model:
        raise Schema(f"the answer is of a model {str(fields['model_name'])[:40]!r}, not {model[:40]!r}")
    _short(fields.get("id"), "id")
    version = _short(fields.get("model_version"), "model_version")
    if not isinstance(fields["outputs"], list) or len(fields["outputs"]) != 1:
        raise Schema("the answer has not exactly one output")
    return Answer(logits=_row(fields["outputs"][0], name=output, classes=classes), version=version)


def metadata(data: bytes, *, model: str) -> None:
    """Look at a model's metadata: is there such a model, does it take FP32 where it says what it takes?

    Raises:
        MalformedError: not metadata, or of another model.
    """
    optional = {"versions", "platform", "inputs", "outputs", "parameters"}
    fields = _fields(parse_json(data), "the metadata", {"name"}, optional)
    if fields["name"] != model:
        raise Schema(f"the metadata are of a model {str(fields['name'])[:40]!r}, not {model[:40]!r}")
    for side in ("inputs", "outputs"):
        tensors = fields.get(side) or []
        if not isinstance(tensors, list) or len(tensors) > 100:
            raise Schema(f"{side} is not a list of tensors")
        for tensor in tensors:
            described = _fields(tensor, f"one of the {side}", {"name", "datatype", "shape"}, {"parameters", "tags"})
            if described["datatype"] != "FP32":
                raise Schema(f"one of the {side} is of {str(described['datatype'])[:40]!r}, not FP32")


__all__ = ["Answer", "answer", "limit", "metadata", "parse_json", "request"]
