"""Branches: one spelling in files, one place in graphs, and the same outputs with them as without."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import auditor.compose
import auditor.execute
import owner.compose
import owner.execute
from protocol.digests import sha256_hex
from protocol.errors import MalformedError, NonCanonical, Schema, TooLarge
from protocol.model.branches import Branch, always_run, branches, check_branches
from protocol.model.check import check_graph
from protocol.model.operators import PATCHED, make_node
from protocol.model.patch import AlwaysGate, Cap, Part, Patch, SetHead, ShiftHead, SketchGate, to_bytes
from protocol.model.profile import DEPLOYED, Graph, Limits, parse, serialise
from protocol.model.shapes import node_type
from tests.auditor.samples import grid_schema, mlp

ITEMS = 70
"""More than one word."""
VECTORS = ["8be0a51c71dcdae6", "6f586250777cdafd", "e78c3915b5641f74", "e78c3915b5641f74"]


def gate(seed=0, **changes):
    random = np.random.default_rng(seed)
    matrix = random.integers(-2, 3, (4, 6)).astype(np.int32)
    sketches = random.integers(0, 16, (ITEMS, 6)) @ matrix.T
    given = {"screen": np.array([0, 1, 2, 3]), "branch": True, **changes}
    return SketchGate(matrix=matrix, low=(sketches - 2).astype(np.int32), high=(sketches + 2).astype(np.int32), **given)


def head(kind=SetHead, seed=1):
    rows = np.random.default_rng(seed).normal(size=(ITEMS, 3)).astype(np.float32)
    return kind(rows=rows, index=np.arange(ITEMS))


def patch(*, caps=(), parts=None):
    return Patch(features=6, classes=3, parts=parts or (Part(gate=gate(), head=head()),), caps=caps)


BASE, SCHEMA = mlp([6, 5, 3]), grid_schema((6,), scale=1.0, offset=0.0, low=0, high=15)


def composed(made=None):
    made = patch() if made is None else made
    found = owner.compose.compose(BASE, SCHEMA, made)
    assert auditor.compose.compare(auditor.compose.compose(BASE, SCHEMA, made), found) is None
    return found


GRAPH = composed()
DATA = serialise(GRAPH)
ALWAYS = Part(gate=AlwaysGate(), head=ShiftHead(rows=np.ones((1, 3), np.float32), index=np.zeros(1, np.int64)))
PATCHES = {
    "one": patch(),
    "capped": patch(caps=(Cap(klass=1, margin="1"),)),
    "two": patch(parts=(Part(gate=gate(), head=head()), Part(gate=gate(5), head=head(ShiftHead, 6)))),
    "with one that always fires": patch(parts=(Part(gate=gate(), head=head()), ALWAYS)),
    "a part without a branch": patch(
        parts=(Part(gate=gate(branch=False), head=head()), Part(gate=gate(5), head=head(ShiftHead, 6)))
    ),
}


@pytest.mark.parametrize("made", PATCHES.values(), ids=PATCHES)
@pytest.mark.parametrize("size", [0, 1, 6])
def test_every_program_gives_what_the_patch_without_a_branch_gives(made, size):
    with_branches = composed(made)
    plain = composed(
        replace(
            made,
            parts=tuple(
                replace(part, gate=replace(part.gate, branch=False)) if isinstance(part.gate, SketchGate) else part
                for part in made.parts
            ),
        )
    )
    data = serialise(with_branches)
    assert parse(data, operators=PATCHED, limits=DEPLOYED) == with_branches
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    items = np.random.default_rng(0)
    items.integers(-2, 3, (4, 6))
    pool = np.concatenate([items.integers(0, 16, (ITEMS, 6)), random.integers(0, 16, (ITEMS, 6))]).astype(np.float32)
    matched = 0
    for _ in range(6):
        x = pool[random.integers(0, len(pool), size)]
        expected = auditor.execute.Program(plain)(x)
        assert auditor.execute.Program(with_branches)(x).tobytes() == expected.tobytes()
        assert owner.execute.Program(with_branches)(x).tobytes() == owner.execute.Program(plain)(x).tobytes()
        names = ("prune/p0/fired", with_branches.output)  # asked for a tensor of the branch, it is run
        fired, output = auditor.execute.Program(with_branches)(x, outputs=names)
        assert output.tobytes() == expected.tobytes()
        assert owner.execute.Program(with_branches)(x, outputs=names)[0].tobytes() == fired.tobytes()
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-4, atol=1e-4)
        matched += int(fired.sum())
    assert (matched > 0) == (size > 0)


@pytest.mark.parametrize("side", [owner.execute, auditor.execute])
def test_a_branch_is_left_out_where_nothing_can_fire(side, monkeypatch):
    program = side.Program(GRAPH)
    ran = []
    nonzero = side.OPERATORS["NonZero"]
    listed = {**side.OPERATORS, "NonZero": lambda *given: ran.append(1) or nonzero(*given)}
    monkeypatch.setattr(side, "OPERATORS", listed)
    far, near = np.full((3, 6), 1e6, np.float32), np.random.default_rng(0).integers(0, 16, (64, 6)).astype(np.float32)
    base = side.Program(BASE)
    assert program(far).tobytes() == base(far).tobytes()
    assert not ran
    program(near)
    assert ran


def test_words_behind_a_branch_are_never_negative():
    # Everything is possible: a word with its sign set would look like less than nothing.
    everything = replace(gate(), low=np.full((ITEMS, 4), -999, np.int32), high=np.full((ITEMS, 4), 999, np.int32))
    made = composed(patch(parts=(Part(gate=everything, head=head()),)))
    assert made.initialisers["prune/p0/table"].shape[1] == 2
    assert made.initialisers["prune/p0/table"].min() >= 0
    x = np.zeros((1, 6), np.float32)
    assert auditor.execute.Program(made)(x).tobytes() == head().rows[:1].tobytes()


@pytest.mark.parametrize("made", PATCHES.values(), ids=PATCHES)
def test_branches_that_are_always_run_give_the_same(made):
    graph = composed(made)
    plain = replace(graph, nodes=always_run(graph.nodes))
    check_graph(plain)
    assert "If" not in {node.op for node in plain.nodes}
    x = np.random.default_rng(4).integers(0, 16, (200, 6)).astype(np.float32)
    x[:ITEMS] = np.random.default_rng(0).integers(0, 16, (ITEMS, 6))
    assert auditor.execute.Program(plain)(x).tobytes() == auditor.execute.Program(graph)(x).tobytes()


def test_a_branch_needs_a_screen():
    with pytest.raises(Schema, match="needs a screen"):
        replace(gate(), screen=None)


def _place(op):
    return next(place for place, node in enumerate(GRAPH.nodes) if node.op == op)


def _swap(place, **changes):
    nodes = list(GRAPH.nodes)
    nodes[place] = replace(nodes[place], **changes)
    return nodes


def _moved(start, end):
    nodes = list(GRAPH.nodes)
    nodes.insert(end, nodes.pop(start))
    return nodes


LAST = len(GRAPH.nodes) - 1
(BRANCH,) = branches(GRAPH.nodes)
SOME, CHOSEN, KEPT = GRAPH.nodes[LAST].inputs
NODES = {
    "a condition of a record": (_swap(LAST, inputs=("prune/p0/fired", CHOSEN, KEPT)), "whole batch"),
    "nothing chosen": (_swap(LAST, inputs=(SOME, KEPT, KEPT)), "does not end with a Where|contribute"),
    "another value kept": (_swap(LAST, inputs=(SOME, CHOSEN, "prune/p0/value")), "Where"),
    "chosen for both": (_swap(LAST, inputs=(SOME, CHOSEN, CHOSEN)), "Where"),
    "two inputs": (_swap(LAST, inputs=(SOME, CHOSEN)), "2 inputs"),
    "another name": (_swap(LAST, name="other"), "name that is not its output's"),
    "an attribute": (_swap(LAST, attributes={"then_branch": 1}), "attribute"),
    "a greatest that could be negative": (_swap(BRANCH.start - 1, inputs=("prune/p0/coarse_cell",)), "not to be negative"),
    "a greatest of each record": (
        _swap(BRANCH.start - 1, attributes={"keepdims": 1, "noop_with_empty_axes": 0}), "whole batch"
    ),
    "a greatest used as a number": (
        _swap(BRANCH.start, op="Unsqueeze", inputs=("prune/p0/most", "prune/axes1"), attributes={}), "activation"
    ),
    "a cast of bits to a condition": (_swap(BRANCH.start, inputs=("prune/p0/both1",)), "only"),
    "a condition cast from a greatest to a number": (
        _swap(BRANCH.start, attributes={"saturate": 1, "to": 1}), "makes a condition"
    ),
    "the condition early": (_moved(BRANCH.start - 1, 0), "before anything makes it"),
}  # fmt: skip


@pytest.mark.parametrize(("nodes", "reason"), NODES.values(), ids=NODES)
def test_other_graphs_with_branches_are_refused(nodes, reason):
    with pytest.raises(MalformedError, match=reason):
        check_graph(replace(GRAPH, nodes=tuple(nodes)))


def _with_behind(*more, output="y2"):
    return replace(GRAPH, nodes=(*GRAPH.nodes, *more), output=output)


def test_nothing_outside_reads_what_a_branch_makes():
    for name in ("prune/p0/value", "prune/p0/chosen"):
        with pytest.raises(MalformedError, match="read elsewhere"):
            check_graph(_with_behind(make_node("Add", (GRAPH.output, name), "y2")))
    taken = make_node("Relu", (GRAPH.output,), GRAPH.output + "/kept")
    with pytest.raises(MalformedError, match="two tensors"):
        check_graph(_with_behind(taken, output=taken.name))


def test_branches_stand_apart():
    again = (
        make_node("Where", ("prune/p0/fired", GRAPH.output, GRAPH.output), "again"),
        make_node("If", (SOME, "again", GRAPH.output), "y2"),
    )
    with pytest.raises(MalformedError, match=r"two of one condition|read elsewhere"):
        check_graph(_with_behind(*again))
    both = composed(PATCHES["two"])
    first, second = branches(both.nodes)
    assert first.end < second.start
    # The first branch with its If, put inside the second.
    inner = both.nodes[first.start - 1 : first.end + 1]
    rest = [node for node in both.nodes if node not in inner]
    start = next(place for place, node in enumerate(rest) if node.outputs == both.nodes[second.start].outputs)
    with pytest.raises(MalformedError, match=r"inside a branch|Where"):
        check_graph(replace(both, nodes=(*rest[: start + 1], *inner, *rest[start + 1 :])))


def spoil(change):
    model = onnx.ModelProto.FromString(DATA)
    last = model.graph.node[-1]
    assert [attribute.name for attribute in last.attribute] == ["else_branch", "then_branch"]
    change(model, last, last.attribute[0].g, last.attribute[1].g)
    return model.SerializeToString(deterministic=True)


def _turned(_, last, otherwise, then):
    other, chosen = onnx.GraphProto(), onnx.GraphProto()
    other.CopyFrom(otherwise)
    chosen.CopyFrom(then)
    otherwise.CopyFrom(chosen)
    then.CopyFrom(other)


def _set(thing, name, value):
    setattr(thing, name, value)


def _declare(value, size):
    value.type.tensor_type.shape.dim.add(dim_value=size)


def _put_between(model, *_):
    last = onnx.NodeProto()
    last.CopyFrom(model.graph.node[-1])
    del model.graph.node[-1]
    model.graph.node.append(helper.make_node("Relu", ["y"], ["between"], name="between"))
    model.graph.node.append(last)


def _rename_within(then, old, new):
    for node in then.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new
    then.node.insert(0, helper.make_node("Identity", [old], [new], name=new))


def _leak(model, then):
    then.node.insert(0, helper.make_node("Identity", ["prune/half"], ["leak"], name="leak"))
    model.graph.node.append(helper.make_node("Add", [GRAPH.output, "leak"], ["y2"], name="y2"))
    model.graph.output[0].name = "y2"


def _shadow(model, op, inputs, **given):
    # Rewritten on reading (SPEC 7.5), so that no node of the graph has this name; in the file one has.
    model.graph.node.insert(0, helper.make_node(op, inputs, [GRAPH.output + "/kept"], **given))


FILES = {
    "turned round": (_turned, "another name"),
    "an attribute twice": (lambda m, n, e, t: n.attribute.append(n.attribute[1]), "two subgraphs"),
    "in the other order": (lambda m, n, e, t: n.attribute.reverse(), "two subgraphs"),
    "one subgraph": (lambda m, n, e, t: n.attribute.pop(), "two subgraphs"),
    "a constant of its own": (lambda m, n, e, t: t.initializer.add(name="c", data_type=1, dims=[1]), "initializer"),
    "an input of its own": (lambda m, n, e, t: t.input.add(name="c"), "input"),
    "a note": (lambda m, n, e, t: _set(t, "doc_string", "hidden"), "doc_string"),
    "a note of the attribute": (lambda m, n, e, t: _set(n.attribute[1], "doc_string", "x"), "documentation"),
    "a note of a node": (lambda m, n, e, t: _set(t.node[0], "doc_string", "hidden"), "doc_string"),
    "a declared tensor": (lambda m, n, e, t: t.value_info.add(name="c"), "value_info"),
    "another name": (lambda m, n, e, t: _set(t, "name", "Then"), "another name"),
    "two outputs": (lambda m, n, e, t: t.output.add(name="c"), "not one output"),
    "no nodes": (lambda m, n, e, t: t.ClearField("node"), "some nodes"),
    "no output": (lambda m, n, e, t: t.ClearField("output"), "not one output"),
    "a shape": (lambda m, n, e, t: _declare(t.output[0], 3), "of what shape"),
    "another type": (lambda m, n, e, t: _set(t.output[0].type.tensor_type, "elem_type", 7), "element type"),
    "an inner output": (lambda m, n, e, t: _set(t.output[0], "name", t.node[0].output[0]), "does not end"),
    "a Constant": (
        lambda m, n, e, t: t.node.insert(0, helper.make_node("Constant", [], ["c"], value_float=1.0)), "Constant"
    ),
    "a branch within": (lambda m, n, e, t: t.node.insert(0, helper.make_node("If", ["c"], ["d"])), "operator If"),
    "a loop within": (lambda m, n, e, t: t.node.insert(0, helper.make_node("Loop", ["c"], ["d"])), "'Loop'"),
    "more in the other one": (
        lambda m, n, e, t: e.node.insert(0, helper.make_node("Relu", ["y"], ["z"], name="z")), "does more than keep"
    ),
    "another operator in the other one": (lambda m, n, e, t: _set(e.node[0], "op_type", "Relu"), "does more than keep"),
    "an unnamed copy": (lambda m, n, e, t: _set(e.node[0], "name", ""), "does more than keep"),
    "another name of the copy": (
        lambda m, n, e, t: (_set(e.node[0], "name", "z"), _set(e.output[0], "name", "z"),
                            e.node[0].output.__setitem__(0, "z")), "does more than keep"
    ),
    "a copy of another tensor": (lambda m, n, e, t: e.node[0].input.__setitem__(0, "hidden0"), "Where|reads|shape"),
    "the output of the node": (lambda m, n, e, t: _set(n, "name", "z"), "not its output's"),
    "two inputs": (lambda m, n, e, t: n.input.append("y"), "one input"),
    "another domain": (lambda m, n, e, t: _set(n, "domain", "com.microsoft"), "domain"),
    "another condition": (lambda m, n, e, t: n.input.__setitem__(0, "prune/p0/most"), "does not follow"),
    "something between": (_put_between, "does not follow"),
    "no graph": (lambda m, n, e, t: _set(n.attribute[1], "type", onnx.AttributeProto.INT), "no subgraph"),
    "a text beside": (lambda m, n, e, t: _set(n.attribute[1], "s", b"hidden"), "with s"),
    "more in a name": (lambda m, n, e, t: _set(t.node[0], "name", "a\nb"), "printable"),
    "a node that is rewritten": (lambda m, n, e, t: _rename_within(t, "prune/half", "leak"), "another spelling"),
    "a rewritten node, read outside": (lambda m, n, e, t: _leak(m, t), "another spelling"),
    "sizes that nobody reads": (
        lambda m, n, e, t: t.node.insert(0, helper.make_node("Shape", ["x"], ["leak"])), "another spelling"
    ),
    "the other name of ONNX's own domain": (lambda m, n, e, t: _set(n, "domain", "ai.onnx"), "another spelling"),
    "the same within": (lambda m, n, e, t: _set(t.node[0], "domain", "ai.onnx"), "another spelling"),
    "an output without a name": (lambda m, n, e, t: t.node[0].output.append(""), "another spelling"),
    "an input without a name": (lambda m, n, e, t: t.node[0].input.append(""), "another spelling"),
    "a default that is written": (
        lambda m, n, e, t: next(one for one in t.node if one.op_type == "ReduceMin").attribute.add(
            name="noop_with_empty_axes", type=onnx.AttributeProto.INT, i=0
        ), "another spelling"
    ),
    "a constant named like the copy": (lambda m, n, e, t: _shadow(m, "Constant", [], value_float=1.0), "two tensors"),
    "an alias named like the copy": (lambda m, n, e, t: _shadow(m, "Identity", ["prune/half"]), "two tensors"),
    "sizes named like the copy": (lambda m, n, e, t: _shadow(m, "Shape", ["x"]), "two tensors"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), FILES.values(), ids=FILES)
def test_a_branch_has_one_spelling(change, reason):
    with pytest.raises(MalformedError, match=reason):
        parse(spoil(change), operators=PATCHED, limits=DEPLOYED)


def test_what_is_refused_for_its_names_is_refused_by_others_too():
    for change in ("a rewritten node, read outside", "an alias named like the copy", "the same within"):
        with pytest.raises(Exception, match=r"(?i)invalid"):
            onnxruntime.InferenceSession(spoil(FILES[change][0]), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("unused", [np.zeros(1, np.float32), np.zeros(0, np.int64), np.zeros(300_000, np.float32)])
def test_a_constant_that_nothing_uses_is_a_note(unused):
    def add(model, *_):
        model.graph.node.insert(
            0, helper.make_node("Constant", [], ["hidden"], value=onnx.numpy_helper.from_array(unused))
        )

    data = spoil(add)
    with pytest.raises(TooLarge, match="without a use"):
        parse(data, operators=PATCHED, limits=DEPLOYED)
    if unused.nbytes < Limits().notes:
        assert parse(data, operators=PATCHED) == GRAPH
    else:
        with pytest.raises(TooLarge, match="without a use"):
            parse(data, operators=PATCHED)


def _number(value):
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + _number(value >> 7)


def _field(number, contents):
    return _number(number << 3 | 2) + _number(len(contents)) + contents


def test_what_a_packed_list_saves_is_no_room_for_something_else():
    # `ints` of an attribute is not packed where we write it; packed, it is a byte shorter for each number.
    name = "prune/p0/row_of_item"
    model = onnx.ModelProto.FromString(DATA)
    constant = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    numbers = onnx.numpy_helper.to_array(constant).tolist()
    model.graph.initializer.remove(constant)
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], value_ints=numbers))
    whole = model.SerializeToString()
    assert parse(whole, operators=PATCHED, limits=DEPLOYED) == GRAPH
    del model.graph.node[0]
    kind = b"\xa0\x01\x07"  # field 20, the attribute's type: INTS
    attribute = _field(1, b"value_ints") + kind + _field(8, b"".join(map(_number, numbers)))
    node = _field(1, _field(2, name.encode()) + _field(4, b"Constant") + _field(5, attribute))
    graph = node + model.graph.SerializeToString()
    model.ClearField("graph")
    packed = model.SerializeToString() + _field(7, graph)
    hidden = packed + _field(200, b"S" * (len(whole) - len(packed) - 3))
    assert len(hidden) == len(whole)
    for data in (packed, hidden):
        with pytest.raises(NonCanonical, match="accounts for"):
            parse(data, operators=PATCHED, limits=DEPLOYED)


def _many(ifs, within):
    """A file with so many more Ifs, each with so many nodes that list places in its branch."""
    model = onnx.ModelProto.FromString(DATA)
    model.graph.node.append(helper.make_node("GreaterOrEqual", [GRAPH.output, KEPT], ["raised"]))
    bits, kept = next(node.inputs[0] for node in GRAPH.nodes if node.op == "NonZero"), GRAPH.output
    for number in range(ifs):
        most, some, chosen, made = (f"{name}{number}" for name in ("most", "some", "chosen", "made"))
        lists = [helper.make_node("NonZero", [bits], [f"z{number}_{place}"]) for place in range(within)]
        then = [*lists, helper.make_node("Where", ["raised", GRAPH.output, kept], [chosen], chosen)]
        otherwise = [helper.make_node("Identity", [kept], [made + "/kept"], made + "/kept")]
        then, otherwise = (
            helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(nodes[-1].output[0], 1, None)])
            for nodes, name in ((then, "then"), (otherwise, "else"))
        )
        model.graph.node.append(helper.make_node("ReduceMax", [bits], [most], keepdims=0))
        model.graph.node.append(helper.make_node("Cast", [most], [some], to=9))
        model.graph.node.append(helper.make_node("If", [some], [made], made, else_branch=otherwise, then_branch=then))
        kept = made
    model.graph.output[0].name = kept
    return model.SerializeToString(deterministic=True)


def test_nodes_of_all_subgraphs_are_counted_before_anything_is_made_of_them(monkeypatch):
    data = _many(3, 30)
    limits = replace(DEPLOYED, nodes=60)
    monkeypatch.setattr("protocol.model.profile.fold", None)
    with pytest.raises(TooLarge, match="with those of subgraphs"):
        parse(data, operators=PATCHED, limits=limits)


class _Counted(Sequence):
    """Nodes, and how many were looked at."""

    def __init__(self, nodes):
        self.nodes, self.seen = nodes, 0

    def __len__(self):
        return len(self.nodes)

    def __getitem__(self, place):
        found = self.nodes[place]
        self.seen += len(found) if isinstance(place, slice) else 1
        return found


def test_many_branches_are_checked_in_one_pass():
    seen = []
    for ifs in (20, 40):
        nodes = _Counted(parse(_many(ifs, 0), operators=PATCHED).nodes)
        check_branches(nodes)
        seen.append(nodes.seen)
    assert seen[1] < 2.1 * seen[0]


def test_a_list_of_places_is_numbered_without_looking_at_all_tensors():
    class Closed(dict):
        def values(self):
            raise AssertionError("every tensor is looked at for every list of places")

        __iter__ = items = values

    types = Closed(check_graph(GRAPH))
    node = next(node for node in GRAPH.nodes if node.op == "NonZero")
    found = node_type(node, types, GRAPH.initialisers, Limits())
    assert found.shape[1] not in {known.shape[-1] for known in dict.values(types) if known.shape}


def _fixed(screen, seed):
    # No randomness: a vector that stays what it is whatever a library's generators do.
    matrix = (np.arange(24).reshape(4, 6) * (seed + 3) % 5 - 2).astype(np.int32)
    sketches = (np.arange(ITEMS * 6).reshape(ITEMS, 6) * (seed + 7) % 16) @ matrix.T
    rows = (np.arange(ITEMS * 3).reshape(ITEMS, 3) % 17 - 8).astype(np.float32) / 4
    return Part(
        gate=SketchGate(
            matrix=matrix, low=(sketches - 2).astype(np.int32), high=(sketches + 2).astype(np.int32), screen=screen
        ),
        head=(SetHead, ShiftHead)[seed % 2](rows=rows, index=np.arange(ITEMS)),
    )


def test_patches_without_a_branch_are_what_they_were():
    """Digests of files that were composed before there was a branch: deployed files and receipts stay valid."""
    weight = (np.arange(18).reshape(3, 6) - 9).astype(np.float32) / 8
    base = Graph(
        opset=17, input="x", input_shape=(6,), output="y", classes=3, initialisers={"w": weight},
        nodes=(make_node("Gemm", ("x", "w"), "y", transB=1),),
    )  # fmt: skip
    made = Patch(
        features=6, classes=3, caps=(Cap(klass=1, margin="1"),),
        parts=(_fixed(np.array([0, 1, 2, 3]), 0), _fixed(None, 1), _fixed(np.array([2]), 2)),
    )  # fmt: skip
    manifest, tensors = to_bytes(made)
    digests = [sha256_hex(data) for data in (manifest, tensors)]
    for side in (owner.compose, auditor.compose):
        digests.append(sha256_hex(serialise(side.compose(base, SCHEMA, made))))
    assert [digest[:16] for digest in digests] == VECTORS


def test_what_is_written_is_plain_onnx():
    assert parse(spoil(lambda *_: None), operators=PATCHED, limits=DEPLOYED) == GRAPH
    assert branches(GRAPH.nodes) == (Branch(start=BRANCH.start, end=LAST),)
    onnx.checker.check_model(onnx.ModelProto.FromString(DATA), full_check=True)
    with pytest.raises(MalformedError, match="'If' is not in the profile"):
        parse(DATA, operators=PATCHED - {"If"})  # as in a base model
