"""A4: the owner's published method, re-run on shadow models (U-LiRA).

Proves: nothing by itself; it makes the shadow models of both worlds, "trained with the record and then made to
forget it" and "never trained with it", for the likelihood-ratio attack to calibrate every record with. Against
an unlearning method this is the attack that counts: others underrate what it leaves.
Assumes: the command is the owner's method as it was published, and its randomness is its own.
Does not: confine the command. It is somebody else's program: it runs without a shell, in a folder and a process
group of its own, with a bare environment, a time limit and a limit on the size of any file it writes, and that is
no sandbox. Put one in front of it (`bwrap ...`, `docker run ...`); the command is a template for that reason.

Interface, by files: `{base}` the shadow model (profile ONNX); `{train}` an .npz of X (float32, model inputs) and y
(int64), its training records; `{forget}` an .npz of rows (int64 places in the training records), X and y;
`{out}` the path to write the resulting model to, in the profile (base operators, or a patched model). `{seed}` is
a number that differs between shadow models. Exit status 0 is success.
"""

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from auditor.attacks.lira import Variance
from auditor.execute import Program
from auditor.shadows import train_shadows
from protocol.digests import jcs_digest, sha256_hex
from protocol.errors import AuditorError, MalformedError
from protocol.model import profile
from protocol.model.graph import Graph, Limits
from protocol.model.recipe import Recipe

FEWEST_SHADOWS = 8
PLACEHOLDERS = ("{base}", "{train}", "{forget}", "{out}", "{seed}")
REQUIRED = ("{train}", "{forget}", "{out}")
_LAUNCHER = (
    "import os,resource,sys;n=int(sys.argv[1]);resource.setrlimit(resource.RLIMIT_FSIZE,(n,n));"
    "resource.setrlimit(resource.RLIMIT_CORE,(0,0));os.execvp(sys.argv[2],sys.argv[2:])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A command that makes a model forget.

    Attributes:
        arguments: program and arguments; placeholders stand alone or inside an argument.
        seconds: time limit of one run.
        size: largest file it may write, in bytes.
    """

    arguments: tuple[str, ...]
    seconds: float = 600.0
    size: int = 512 << 20

    def __post_init__(self) -> None:
        """Refuse a template that cannot work.

        Raises:
            AuditorError: a placeholder is missing, or a limit is not above 0.
        """
        text = " ".join(self.arguments)
        if missing := [name for name in REQUIRED if name not in text]:
            raise AuditorError(f"the command does not say where {', '.join(missing)} goes")
        if not self.seconds > 0.0 or self.size < 1:
            raise AuditorError("a method needs a time and a size limit above 0")

    @classmethod
    def parse(cls, command: str, *, seconds: float = 600.0, size: int = 512 << 20) -> "Method":
        """Read a plan's command line; quoting as in a shell, nothing else of one.

        Raises:
            AuditorError: unbalanced quotes, or a template that cannot work.
        """
        try:
            arguments = tuple(shlex.split(command))
        except ValueError as error:
            raise AuditorError(f"the command cannot be read: {error}") from None
        return cls(arguments=arguments, seconds=seconds, size=size)

    def __call__(
        self,
        model: Graph,
        inputs: Float32[np.ndarray, "record ..."],
        labels: Int64[np.ndarray, "record"],
        rows: Int64[np.ndarray, "item"],
        *,
        folder: Path,
        seed: int,
    ) -> Graph:
        """Make one model forget some of its training records.

        Args:
            model: the trained model.
            inputs: its training records.
            labels: their classes.
            rows: places of the records to forget.
            folder: empty, for the command's files; it is its working directory.
            seed: for `{seed}`.

        Raises:
            AuditorError: the command failed, took too long, or wrote no model of the profile.
        """
        paths = {name: folder / file for name, file in _FILES.items()}
        paths["{base}"].write_bytes(profile.serialise(model))
        paths["{train}"].write_bytes(_npz(X=inputs, y=labels))
        paths["{forget}"].write_bytes(_npz(rows=rows, X=inputs[rows], y=labels[rows]))
        words = {name: str(path) for name, path in paths.items()} | {"{seed}": str(seed)}
        arguments = [_filled(argument, words) for argument in self.arguments]
        self._run(arguments, folder)
        out = paths["{out}"]
        if out.is_symlink() or not out.is_file():
            raise AuditorError("the method wrote no model")
        if out.stat().st_size > self.size:
            raise AuditorError(f"the method wrote a model of more than {self.size} bytes")
        return read_model(out.read_bytes(), model, self.size)

    def _run(self, arguments: list[str], folder: Path) -> None:
        environment = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS") if name in os.environ}
        with (folder / "log").open("wb") as log:
            try:
                process = subprocess.Popen(  # noqa: S603 - the plan's own command, no shell; see the module's docstring
                    [sys.executable, "-I", "-c", _LAUNCHER, str(self.size), *arguments],
                    cwd=folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise AuditorError(f"the method cannot be started: {error}") from None
            try:
                status = process.wait(timeout=self.seconds)
            except subprocess.TimeoutExpired:
                raise AuditorError(f"the method took more than {self.seconds:g} seconds") from None
            finally:
                _end(process)
        if status:
            told = (folder / "log").read_bytes()[-2000:].decode("utf-8", "replace").strip().splitlines()
            raise AuditorError(f"the method ended with status {status}: {told[-1][:200] if told else 'no message'}")


_FILES = {"{base}": "base.onnx", "{train}": "train.npz", "{forget}": "forget.npz", "{out}": "out.onnx"}


def _filled(argument: str, words: dict[str, str]) -> str:
    for name, word in words.items():
        argument = argument.replace(name, word)
    return argument


def _end(process: subprocess.Popen[bytes]) -> None:
    # The whole group: a method may have started helpers, and they would outlive it.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def read_model(data: bytes, like: Graph, size: int) -> Graph:
    """Parse a method's output, which is foreign bytes, and check that it fits the model it came from.

    Raises:
        AuditorError: not a model of the profile with the same input shape and classes.
    """
    try:
        graph = profile.parse(data, operators=profile.PATCHED, limits=Limits(size=size))
    except MalformedError as error:
        raise AuditorError(f"the method's model cannot be read: {error}") from None
    if (graph.input_shape, graph.classes) != (like.input_shape, like.classes):
        raise AuditorError(
            f"the method's model takes {graph.input_shape} and gives {graph.classes} classes, "
            f"not {like.input_shape} and {like.classes}"
        )
    return graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """What a plan says about the owner's method.

    Attributes:
        command: the command line, with placeholders; quoting as in a shell.
        shadows: shadow models, each of which the command is run on; at least 8.
        seconds: time limit of one run.
        never_seen: never-seen records that are audited beside the forgotten ones; 0 takes twice as many as there are
            forgotten ones and at least 150, but leaves a third of the reference for training.
        variance: of the likelihood-ratio attack; see `lira.py`.
    """

    command: str = ""
    shadows: int = 16
    seconds: float = 600.0
    never_seen: int = 0
    variance: Variance = "auto"

    def __post_init__(self) -> None:
        """Refuse parameters outside their range.

        Raises:
            AuditorError: no command, one that cannot work, or too few shadow models.
        """
        if not self.command:
            raise AuditorError("rerun needs the command of the owner's published method")
        if self.shadows < FEWEST_SHADOWS or self.never_seen < 0:
            raise AuditorError(f"rerun needs at least {FEWEST_SHADOWS} shadow models, and no negative count")
        self.method()

    def method(self) -> Method:
        """Return the command.

        Raises:
            AuditorError: it cannot work.
        """
        return Method.parse(self.command, seconds=self.seconds)

    def count(self, forgotten: int, reference: int) -> int:
        """Return how many never-seen records to audit beside so many forgotten ones, of so many."""
        wanted = self.never_seen or max(2 * forgotten, 150)
        return min(wanted, reference * 2 // 3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worlds:
    """Shadow models after the method, on the audited records.

    Attributes:
        shadow_logits: of each shadow model after it was made to forget the audited records in its half.
        out: True where the shadow model was never trained with the record, else it had to forget it.
    """

    shadow_logits: Float32[np.ndarray, "shadow record class"]
    out: Bool[np.ndarray, "shadow record"]


def rerun(
    method: Method,
    graph: Graph,
    inputs: Float32[np.ndarray, "record ..."],
    labels: Int64[np.ndarray, "record"],
    audited: Bool[np.ndarray, "record"],
    *,
    recipe: Recipe,
    seed: int,
    count: int,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Worlds:
    """Train shadow models on halves of all records and make each forget the audited records of its half.

    Put the result into an `Observation` of the audited records and run `lira-online` on the patched model's
    logits: its "trained with" is then "trained with and made to forget".

    Args:
        method: the command.
        graph: the architecture.
        inputs: forgotten records, as many never-seen ones, and further ones that shadow models train on.
        labels: their classes.
        audited: the forgotten records and the never-seen ones they are compared with.
        recipe: how to train the shadow models.
        seed: of everything random here; at least 0.
        count: shadow models; each runs the method once.
        folder: results are kept here, so that an interrupted audit goes on where it stopped.
        progress: called with (models done, count).

    Raises:
        AuditorError: shadow models cannot be trained, nothing is audited, or the method fails.
    """
    if audited.shape != labels.shape or audited.dtype != np.bool_ or not audited.any():
        raise AuditorError("audited is one boolean for each record, and some are audited")
    shadows = train_shadows(graph, inputs, labels, recipe=recipe, seed=seed, count=count, cache=folder / "shadows")
    key = jcs_digest(
        {
            "version": "prune-audit/rerun/v1",
            "method": list(method.arguments),
            "audited": sha256_hex(np.packbits(audited).tobytes()),
            "inputs": sha256_hex(np.ascontiguousarray(inputs).tobytes()),
            "parameters": [sha256_hex(np.ascontiguousarray(array).tobytes()) for array in shadows.parameters.values()],
            "seed": str(seed),
        }
    )
    found = []
    for number in range(count):
        kept = folder / f"{key}-{number}.onnx"
        own = replace(
            graph,
            initialisers={**graph.initialisers, **{name: array[number] for name, array in shadows.parameters.items()}},
        )
        if kept.is_file():
            after = read_model(kept.read_bytes(), graph, method.size)
        else:
            members = np.flatnonzero(~shadows.out[number])
            work = folder / f"{key}-{number}.work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            after = method(
                own,
                inputs[members],
                labels[members],
                np.flatnonzero(audited[members]),
                folder=work,
                seed=seed + number,
            )
            (work / "out.onnx").replace(kept)
            shutil.rmtree(work)
        found.append(Program(after)(inputs[audited]))
        if progress is not None:
            progress(number + 1, count)
    return Worlds(shadow_logits=np.stack(found), out=shadows.out[:, audited])
