"""A run of queries: sent in their order at their times, repeated where nothing came, written down one by one.

Proves: never more requests than the budget, never faster than the rate, never before a `Retry-After` is over; what is
in the journal is what was sent, but for one query for each interruption. Never sends a query anew that was answered:
whoever asks until the answer flatters would be shopping, so a journal is taken up or refused, never begun again.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from auditor.deployment.client import Nothing, Query
from auditor.deployment.inference import Answer
from auditor.deployment.journal import Journal, Line
from auditor.deployment.probes import Probes
from auditor.deployment.source import Live, read
from auditor.files import write_atomic
from protocol.errors import AuditorError
from protocol.model.schema import InputSchema

_OUTAGE = 20
"""Queries in a row without an answer, after which nobody is asked any more."""
_PATIENCE = 3600.0
"""Longest wait, in seconds, that an endpoint may ask for."""
_BUSY = 50
"""How often one query may be told to wait."""
_BACK_OFF = 1.0
_LONGEST_BACK_OFF = 60.0


def run(
    live: Live, probes: Probes, *, schema: InputSchema, names: tuple[str, str], progress: Callable[[str, float], None]
) -> Journal:
    """Ask the endpoint.

    Args:
        live: whom and how.
        probes: what, in this order.
        schema: turns grid values into inputs.
        names: of the certified file's input and output tensor.
        progress: called with a stage and the share done.

    Raises:
        AuditorError: another run's journal, or an endpoint that stopped answering; what was answered is kept.
    """
    return _Run(live, probes, schema, names, progress).run()


class _Run:
    def __init__(
        self,
        live: Live,
        probes: Probes,
        schema: InputSchema,
        names: tuple[str, str],
        progress: Callable[[str, float], None],
    ) -> None:
        self.live, self.probes, self.progress = live, probes, progress
        self.endpoint, self.pace = live.endpoint, live.pace
        self.records = schema.dequantise(probes.values)
        self.names = (self.endpoint.input_name or names[0], self.endpoint.output_name or names[1])
        self.journal = self._begun()
        self.requests = self.journal.requests
        self.written = [line.to_bytes(number) for number, line in enumerate(self.journal.lines)]

    def _begun(self) -> Journal:
        fresh = Journal(
            endpoint=self.endpoint.public(),
            plan=self.probes.digest,
            planned=len(self.probes.probes),
            classes=self.probes.certified.shape[1],
        )
        path = self.live.state
        if not path.exists():
            return fresh
        known = read(path)
        if (known.plan, known.endpoint, known.planned) != (fresh.plan, fresh.endpoint, fresh.planned):
            raise AuditorError(
                "queries of this audit were sent under another endpoint file or with other reference data; give the "
                "same ones, or open another audit",
                where=str(path),
            )
        if len(known.lines) == known.planned:
            return known
        if not self.live.resume:
            raise AuditorError(
                f"{len(known.lines)} of {known.planned} queries were sent by an interrupted run; give --resume",
                where=str(path),
            )
        return replace(known, resumed=known.resumed + 1)

    def run(self) -> Journal:
        done = len(self.journal.lines)
        if done == self.journal.planned:
            return self.journal
        self._ready()
        start = self.pace.clock() - (float(self.probes.due[done - 1]) if done else 0.0)
        silent = 0
        for number in range(done, len(self.probes.probes)):
            if self.requests >= self.endpoint.budget:
                break
            self.pace.until(start + float(self.probes.due[number]))
            line = self._ask(number)
            self._keep(line)
            self.progress("asking the endpoint", (number + 1) / len(self.probes.probes))
            # After a wait the rest keeps its distances: a burst would be faster than the rate.
            start = max(start, self.pace.clock() - float(self.probes.due[number]))
            silent = silent + 1 if line.logits is None else 0
            if silent >= _OUTAGE and number + 1 < len(self.probes.probes):
                raise AuditorError(
                    f"the endpoint left {silent} queries in a row without an answer (the last: {line.failure}); what "
                    "was asked is kept: run again with --resume, or without --endpoint to report what there is",
                    where=self.endpoint.urls[self.probes.probes[number].url],
                )
        return self.journal

    def _ready(self) -> None:
        for url in self.endpoint.urls:
            for attempt in range(self.endpoint.attempts):
                said = self.live.transport.ready(self.endpoint, url, self.endpoint.identities[0])
                if said is None:
                    break
                if attempt + 1 == self.endpoint.attempts:
                    raise AuditorError(f"the endpoint is not ready: {said.reason}", where=url)
                self._wait(said, attempt)

    def _wait(self, said: Nothing, attempt: int) -> None:
        asked = said.wait if said.wait is not None else 0.0
        if asked > _PATIENCE:
            raise AuditorError(
                f"the endpoint asks to wait {asked:.0f} s; what was asked is kept: run again with --resume"
            )
        least = max(asked, min(_BACK_OFF * 2**attempt, _LONGEST_BACK_OFF), 1.0 / self.endpoint.rate)
        self.pace.until(self.pace.clock() + least)

    def _ask(self, number: int) -> Line:
        probe = self.probes.probes[number]
        identity, url = self.endpoint.identities[probe.identity], self.endpoint.urls[probe.url]
        query = Query(
            record=np.asarray(self.records[number], dtype=np.float32),
            input_name=self.names[0],
            output_name=self.names[1],
            classes=self.probes.certified.shape[1],
        )
        begun, sent, failed, busy = self.pace.clock(), 0, 0, 0
        while True:
            said = self.live.transport.ask(self.endpoint, url, identity, query)
            sent += 1
            self.requests += 1
            if isinstance(said, Answer):
                version = said.version if self.endpoint.model_version not in (None, said.version) else None
                if self.endpoint.model_version is not None and said.version is None:
                    said = Nothing(reason="the answer does not say which version answered")
                else:
                    return Line(
                        kind=probe.kind,
                        identity=identity.name,
                        url=probe.url,
                        at=begun,
                        requests=sent,
                        logits=said.logits,
                        version=version,
                    )
            if said.busy:
                busy += 1
            else:
                failed += 1
            if failed >= self.endpoint.attempts or busy >= _BUSY or self.requests >= self.endpoint.budget:
                return Line(
                    kind=probe.kind,
                    identity=identity.name,
                    url=probe.url,
                    at=begun,
                    requests=sent,
                    logits=None,
                    failure=said.reason,
                )
            self._wait(said, failed + busy - 1)

    def _keep(self, line: Line) -> None:
        self.written.append(line.to_bytes(len(self.journal.lines)))
        self.journal = replace(self.journal, lines=(*self.journal.lines, line))
        write_atomic(self.live.state, b"".join((self.journal.header(), *self.written)), secret=True)


__all__ = ["run"]
