"""A log, its witnesses, its monitors and a dishonest operator, in any order.

Model: the list of entries that the honest log published. The operator may also show rolled-back, forked and
frozen folders, tear files and stop writers; whatever happens, a witness and a monitor accept exactly what extends
all that they saw, a reader is told the truth about what is signed, and evidence is kept when a log signed twice.
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from protocol.errors import Consistency, DigestMismatch, Error, Expired, MalformedError, Rollback
from protocol.log import checkpoint, files, merkle, note, proof, tiles, verify
from protocol.log.checkpoint import Checkpoint
from protocol.log.store import Log
from protocol.log.verify import verify_log
from protocol.log.witness import Memory, cosign, watch
from protocol.log.witness_http import Request, Witness, to_bytes
from tests.protocol.log.helpers import LOG_KEY, ML_DSA, ORIGIN, POLICY, WITNESSES

STEPS = [0]
MAX_AGE = 50


class Stopped(Exception):
    pass


class LogMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.log = Log.create(self.folder / "log", LOG_KEY)
        self.entries = []
        self.hashes = []
        self.published = [self.log.checkpoint_bytes()]  # everything that was ever signed
        self.seen = dict.fromkeys(["w0", "w1", "http", "monitor"], None)  # the size each remembers
        self.forks = 0
        self.now = 1000
        self.unfinished = False

    def teardown(self):
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    # -- the honest log

    def publish(self, batch):
        self.entries += batch
        self.hashes += merkle.leaf_hashes(batch)
        self.published.append(self.log.checkpoint_bytes())

    @rule(batch=st.lists(st.binary(max_size=4), max_size=4))
    def append(self, batch):
        first = len(self.entries)
        assert self.log.append(batch, LOG_KEY) == list(range(first, first + len(batch)))
        if batch:
            self.publish(batch)
            self.unfinished = False

    @rule(count=st.integers(200, 300))
    def append_many(self, count):
        self.append([b"many %d" % i for i in range(count)])

    @rule(steps=st.integers(0, 4), batch=st.lists(st.binary(max_size=4), min_size=1, max_size=4))
    def writer_is_stopped(self, steps, batch):
        real, left = files._write_durably, [steps]

        def write(path, data):
            if not left[0]:
                Path(path).write_bytes(data[: len(data) // 2])  # torn
                raise Stopped
            left[0] -= 1
            real(path, data)

        files._write_durably, files._WRITERS = write, 1
        try:
            self.log.append(batch, LOG_KEY)
        except Stopped:
            self.unfinished = True
        else:
            self.unfinished = False
        finally:
            files._write_durably, files._WRITERS = real, 8
        if self.log.size != len(self.entries):
            self.publish(batch)

    @rule(who=st.sampled_from([0, 1]), wait=st.integers(0, 30))
    def witness(self, who, wait):
        self.now += wait
        data = cosign(self.log.path, WITNESSES[who], self.folder / f"w{who}", self.now, log_key=LOG_KEY.verifier)
        assert POLICY.verify_checkpoint(data).cosigned[f"w{who}"] == self.now
        self.seen[f"w{who}"] = len(self.entries)
        self.unfinished = False

    # -- the witness over HTTP, without sockets

    def endpoint(self):
        return Witness(
            keys=[WITNESSES[2], ML_DSA],
            logs={ORIGIN: [LOG_KEY.verifier]},
            memory=Memory(folder=self.folder / "http"),
            clock=lambda: self.now,
        )

    def ask(self, old, proof, signed):
        return self.endpoint().add_checkpoint(to_bytes(Request(old_size=old, proof=proof, checkpoint_note=signed)))

    @rule(data=st.data())
    def honest_request(self, data):
        signed = data.draw(st.sampled_from(self.published))
        new = checkpoint.parse_signed(signed)[1].size
        old = data.draw(st.one_of(st.just(self.seen["http"] or 0), st.integers(0, len(self.entries))))
        connecting = self.log.prove_consistency(old, new) if 0 < old <= new else ()
        answer = self.ask(old, connecting, signed)
        if old > new:
            assert answer.status == 400
        elif old != (self.seen["http"] or 0):
            assert (answer.status, answer.body) == (409, b"%d\n" % (self.seen["http"] or 0))
        else:
            assert answer.status == 200
            self.seen["http"] = new

    @precondition(lambda self: self.seen["http"])
    @rule(more=st.integers(0, 3))
    def split_view_request(self, more):
        old = self.seen["http"]
        head = Checkpoint(origin=ORIGIN, size=old + more, root=merkle.leaf_hash(b"another history %d" % more))
        connecting = self.log.prove_consistency(old, old) if not more else (bytes(32),)
        assert self.ask(old, connecting, checkpoint.sign(head, LOG_KEY)).status == 422
        kept = (Memory(folder=self.folder / "http").place(ORIGIN) / "evidence").exists()
        assert kept or more

    # -- what a dishonest operator shows

    def showing(self, count, entries=None):
        """Another folder under the same key: the first `count` entries, or these."""
        self.forks += 1
        shown = Log.create(self.folder / f"shown{self.forks}", LOG_KEY)
        if batch := (self.entries[:count] if entries is None else entries):
            shown.append(batch, LOG_KEY)
        return shown

    @precondition(lambda self: (self.seen["w0"] or 0) > 0 and len(self.entries) < 600)
    @rule(data=st.data())
    def rollback(self, data):
        shown = self.showing(data.draw(st.integers(0, self.seen["w0"] - 1)))
        with pytest.raises(Rollback, match="kept in"):
            cosign(shown.path, WITNESSES[0], self.folder / "w0", self.now, log_key=LOG_KEY.verifier)
        assert b"witness" not in shown.checkpoint_bytes()
        shutil.rmtree(shown.path)

    @precondition(lambda self: (self.seen["w1"] or 0) > 0 and len(self.entries) < 600)
    @rule(data=st.data(), more=st.integers(0, 3))
    def split_view(self, data, more):
        changed = data.draw(st.integers(0, self.seen["w1"] - 1))
        entries = [*self.entries[: self.seen["w1"]], *[b"more"] * more]
        entries[changed] += b"!"
        shown = self.showing(0, entries)
        with pytest.raises(Consistency, match="kept in"):
            cosign(shown.path, WITNESSES[1], self.folder / "w1", self.now, log_key=LOG_KEY.verifier)
        shutil.rmtree(shown.path)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def stale_checkpoint(self, data):
        """The folder of today under a checkpoint of earlier: refused as what it is, or plainly older."""
        current = self.log.checkpoint_bytes()
        old = data.draw(st.sampled_from(self.published))
        size = checkpoint.parse_signed(old)[1].size
        (self.log.path / "checkpoint").write_bytes(old)
        try:
            if size < (self.seen["w0"] or 0):
                with pytest.raises(Rollback):
                    cosign(self.log.path, WITNESSES[0], self.folder / "w0", self.now, log_key=LOG_KEY.verifier)
            with pytest.raises(Rollback) if size < len(self.entries) else pytest.raises(DigestMismatch):
                reread = verify.verify_served(
                    files.folder_fetch(self.log.path), POLICY, remembered=current, keep_leaves=False
                )
                assert reread.size == len(self.entries)
                raise DigestMismatch("not stale")
        finally:
            (self.log.path / "checkpoint").write_bytes(current)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def garbage_tile(self, data):
        names = [tile.path for tile in tiles.tiles_of(len(self.entries))]
        path = self.log.path / data.draw(st.sampled_from(names))
        good = path.read_bytes()
        place = data.draw(st.integers(0, len(good) - 1))
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            with pytest.raises((DigestMismatch, MalformedError)) as caught:
                verify.verify_served(files.folder_fetch(self.log.path), POLICY, keep_leaves=False)
            assert caught.value.where == str(path.relative_to(self.log.path))
        finally:
            path.write_bytes(good)

    # -- readers

    @rule()
    def monitor(self):
        try:
            summary = watch(self.log.path, POLICY, self.folder / "monitor")
        except MalformedError as error:
            assert self.unfinished
            assert "unfinished" in error.message
        else:
            assert summary.root == merkle.root_from_hashes(self.hashes)
            if summary.checkpoint.quorum_met:
                self.seen["monitor"] = summary.size

    @rule(wait=st.integers(0, 100))
    def freshness(self, wait):
        checked = POLICY.verify_checkpoint(self.log.checkpoint_bytes())
        fresh = checked.quorum_met and self.now + wait - checked.time <= MAX_AGE
        try:
            verify.verify_fresh(checked, now=self.now + wait, max_age=MAX_AGE)
        except Expired:
            assert not fresh
        else:
            assert fresh

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def prove(self, data):
        index = data.draw(st.integers(0, len(self.entries) - 1))
        made = self.log.prove_inclusion(index)
        assert proof.parse(proof.to_bytes(made)) == made
        assert proof.verify(self.entries[index], made, POLICY, origin=ORIGIN).index == index
        with pytest.raises(Error):
            proof.verify(self.entries[index] + b"!", made, POLICY, origin=ORIGIN)

    @rule(data=st.data())
    def everything_published_is_a_beginning(self, data):
        old = checkpoint.parse_signed(data.draw(st.sampled_from(self.published)))[1]
        assert self.log.root_at(old.size) == old.root
        assert merkle.root_from_hashes(self.hashes[: old.size]) == old.root

    @invariant()
    def published_is_the_model(self):
        STEPS[0] += 1
        if not hasattr(self, "entries"):
            return
        signed, head = checkpoint.parse_signed(self.log.checkpoint_bytes())
        assert (head.size, head.root) == (len(self.entries), merkle.root_from_hashes(self.hashes))
        assert note.verify(signed, [LOG_KEY.verifier])
        for who, size in self.seen.items():
            kept = Memory(folder=self.folder / who).remembered(ORIGIN)
            assert (checkpoint.parse_signed(kept)[1].size if kept else None) == size


def run(examples, steps):
    STEPS[0] = 0
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            derandomize=True,
        ),
    )
    return STEPS[0]


def test_two_hundred_steps():
    assert run(10, 30) >= 200


@pytest.mark.slow
def test_ten_thousand_steps():
    assert run(260, 50) >= 10_000


def test_a_whole_folder_after_a_long_life(tmp_path):
    # The machine reads through `verify_served` for speed; the folder as a whole agrees.
    log = Log.create(tmp_path / "log", LOG_KEY)
    for count in (1, 254, 1, 1, 300):
        log.append([b"%d" % i for i in range(count)], LOG_KEY)
        assert verify_log(log.path, POLICY, keep_leaves=False).size == log.size
