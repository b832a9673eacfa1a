"""Fuzzing with structure: every parser against its own seeds, cut, joined, repeated and bent; and the kept inputs again.

Bytes without structure are for `make fuzz`. Both hold the same: only our errors come out, and accepted bytes are written
back the same. Time and memory are bounded here by what the largest seeds may cost.
"""

import ast
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
TOKENS = (
    b'"', b"{", b"}", b"[", b"]", b":", b",", b"null", b"true", b"-0", b"1e400", b"1.0", b"NaN", b"9" * 40, b"\\ud800",
    b"\\u0000", b"\n", b"\n\n", b"\r\n", b" ", b"\0", b"\xff", b"\xef\xbb\xbf", b"=", b"==", b"-", b"&a [*a]", b"!!python/none",
    b"\xe2\x80\x94 ", b"quorum none\n", b"tile/0/000", b"../", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"PK\x03\x04",
    b"\xff\xff\xff\xff",
)  # fmt: skip
MOST_BYTES = 64 << 20
"""What one parse of a small input may hold at once."""


@st.composite
def bent(draw, seeds):
    """A seed with a few changes that know its tokens."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        piece = data[start:end]
        new = draw(
            st.one_of(
                st.sampled_from(TOKENS),
                st.binary(max_size=6),
                st.just(b""),
                st.just(piece * 2),
                st.just(piece[::-1]),
                st.sampled_from(seeds).flatmap(
                    lambda s: st.integers(0, len(s)).map(lambda cut, s=s: s[cut : cut + 30])
                ),
            )
        )
        data = data[:start] + new + data[end:]
    return data


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_only_our_errors_come_out(name):
    target = TARGETS[name]
    seeds = target.seeds()
    assert all(target(seed) for seed in seeds), "a seed is refused"

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bent(seeds))
    def check(data):
        target(data)

    check()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_kept_inputs_again(name):
    """What byte fuzzing found worth keeping: faults of the past first of all."""
    target = TARGETS[name]
    for path in sorted((CORPUS / name).glob("*")):
        target(path.read_bytes())


LONG = {
    "brackets": b"[" * 60_000, "braces": b'{"a":' * 15_000, "digits": b"9" * 60_000, "spaces": b" " * 60_000,
    "lines": b"\n" * 60_000, "zeros": bytes(60_000), "quotes": b'"' * 60_000, "dashes": b"- " * 30_000,
    "aliases": b"a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n" * 300, "signatures": b"t\n\n" + "— a AAAAAAA=\n".encode() * 3_000,
}  # fmt: skip


@pytest.mark.parametrize("shape", sorted(LONG))
def test_long_inputs_cost_little(shape):
    """Limits come before the work: nothing here takes seconds. (`make fuzz` bounds memory, for a process of its own.)"""
    for name, target in TARGETS.items():
        started = time.process_time()
        target(LONG[shape])
        target(target.seeds()[0] + LONG[shape])
        seconds = time.process_time() - started
        assert seconds < 10, f"{name}: {seconds:.1f} s for {len(LONG[shape])} bytes"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_long_inputs_hold_little(name):
    for shape, data in LONG.items():
        tracemalloc.start()
        TARGETS[name](data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MOST_BYTES, f"{shape}: {peak} bytes at once for {len(data)}"


def parsers():
    """Public functions of protocol/ and auditor/ whose first argument is bytes and that read a format."""
    for package in ("protocol", "auditor"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.parse(path.read_text()).body:
                if not isinstance(node, ast.FunctionDef) or not node.args.args:
                    continue
                first = node.args.args[0]
                kind = ast.unparse(first.annotation) if first.annotation is not None else ""
                if node.name.startswith(("parse", "read_npz", "split_", "decode")) and kind == "bytes":
                    yield f"{module}.{node.name}"


def test_every_parser_is_a_target():
    covered = {name for target in TARGETS.values() for name in target.covers}
    missing = set(parsers()) - covered
    assert not missing, f"no fuzz target for {sorted(missing)}"
