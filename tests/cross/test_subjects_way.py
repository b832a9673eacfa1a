"""A subject's way: slip, request, receipt. What each command prints names the next step, also where a step went wrong."""

from tests.demo.world import run


def test_each_step_names_the_next_one(world_copy, tmp_path):
    world, keys = world_copy, tmp_path / "keys"
    slip = run(
        "prune-owner",
        "slip",
        "--commitment",
        world.root / "commitment",
        "--records",
        "5,6",
        "--out",
        tmp_path / "slip.npz",
    )
    assert slip.code == 0, slip.err
    assert "prune-auditor request --slip slip.npz" in slip.out

    keygen = run("prune-auditor", "keygen", "me", "--use", "statement", "--out", keys)
    assert "trust.json" in keygen.out

    request = run("prune-auditor", "request", "--slip", tmp_path / "slip.npz", "--key", keys / "me.key",
                  "--log", world.auditor_log, "--out", tmp_path / "mine.json", "--now", world.clock.tick())  # fmt: skip
    assert request.code == 0, request.err
    for name in ("mine.json", "mine.leaves.json", "mine.tlog-proof"):
        assert name in request.out
        assert (tmp_path / name).is_file()
    assert "as a requester in this log" in request.out

    certified = run("prune-owner", "unlearn", "--commitment", world.root / "commitment", "--request", tmp_path / "mine.json",
                    "--key", world.key("owner"), "--log", world.owner_log, "--out", tmp_path / "mine-bundle",
                    "--now", world.clock.tick())  # fmt: skip
    assert certified.code == 0, certified.err
    audit = run("prune-auditor", "audit", tmp_path / "mine-bundle", *world.trusted(), "--profile", "redirection",
                "--key", world.key("auditor"), "--log", world.auditor_log, "--out", tmp_path / "report")  # fmt: skip
    # The key is in nobody's trust file yet: the message says whose, and as what it has to be listed.
    assert audit.code == 4
    assert "list the .vkey of its key there, as requester" in audit.err
