"""A log's checkpoint goes to the witnesses of its policy; one that fails does not keep the others out."""

import contextlib

import pytest

from protocol.errors import UnknownKey
from protocol.log import policy
from protocol.log.publish import publish
from protocol.log.witness import Memory
from protocol.log.witness_http import Witness, serve
from tests.protocol.log.helpers import LOG_KEY, ML_DSA, ORIGIN, WITNESSES, key, make_log


@contextlib.contextmanager
def witnesses(tmp_path, *key_sets):
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                serve(
                    Witness(
                        keys=keys,
                        logs={ORIGIN: [LOG_KEY.verifier]},
                        memory=Memory(folder=tmp_path / f"w{number}"),
                        clock=lambda number=number: 100 + number,
                    ),
                    prefix="/w" if number else "",
                )
            )
            for number, keys in enumerate(key_sets)
        ]


def policy_for(urls, quorum="any"):
    lines = [f"log {LOG_KEY.verifier.vkey}"]
    names = []
    for number, (keys, url) in enumerate(urls):
        for kind, signer in enumerate(keys):
            names.append(f"n{number}-{kind}")
            lines.append(f"witness {names[-1]} {signer.verifier.vkey} {url}")
    lines += [f"group g {quorum} {' '.join(names)}", "quorum g"]
    return policy.parse("\n".join([*lines, ""]).encode())


def test_all_of_them_and_one_with_two_kinds_of_key(tmp_path):
    log = make_log(tmp_path / "log", 3)
    sets = [[WITNESSES[0], ML_DSA], [WITNESSES[1]]]
    with witnesses(tmp_path, *sets) as urls:
        trusted = policy_for(zip(sets, urls, strict=True), "all")
        made = publish(log.path, trusted)
        assert (made.cosigned, made.refused, made.without_address) == (tuple(urls), {}, ())
        assert made.checkpoint.cosigned == {"n0-0": 100, "n0-1": 100, "n1-0": 101}
        assert made.checkpoint.quorum_met
        log.append([b"more"], LOG_KEY)
        again = publish(log.path, trusted)
        lines, facts, complaint = again.told("here")
        assert (len(lines), facts["quorum"], complaint) == (3, True, None)
        assert publish(log.path, trusted).checkpoint.checkpoint.size == 4


def test_one_that_is_down_and_one_without_an_address(tmp_path):
    log = make_log(tmp_path / "log", 3)
    sets = [[WITNESSES[0]], [WITNESSES[1]], [WITNESSES[2]]]
    with witnesses(tmp_path, sets[0]) as (url,):
        trusted = policy_for(zip(sets, [url, "http://127.0.0.1:9/", ""], strict=True), "2")
        made = publish(log.path, trusted, seconds=5)
    assert made.cosigned == (url,)
    assert list(made.refused) == ["http://127.0.0.1:9/"]
    assert made.without_address == ("n2-0",)
    assert not made.checkpoint.quorum_met


def test_a_witness_that_has_seen_more_or_other_keys(tmp_path):
    log = make_log(tmp_path / "log", 3)
    other = make_log(tmp_path / "longer", 5)
    with witnesses(tmp_path, [WITNESSES[0]]) as (url,):
        trusted = policy_for([([WITNESSES[0]], url)])
        publish(other.path, trusted)
        refused = publish(log.path, trusted).refused[url]
        assert "has seen 5 entries" in refused
        swapped = policy_for([([WITNESSES[1]], url)])
        assert "no line of the answer" in publish(other.path, swapped).refused[url]
    with pytest.raises(UnknownKey, match="lists no log"):
        publish(log.path, policy.parse(f"log {key('example.com/x', 'log').verifier.vkey}\nquorum none\n".encode()))
