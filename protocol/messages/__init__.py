"""The messages of the flow, one module each: what an envelope of each predicate type says.

Every module has frozen dataclasses with `PREDICATE` (their type), `SUBJECT` (the file name of the
artefact that they are about), `parse(statement)` (the only way in from bytes) and `payload()` (the
same bytes again). `read` below goes from envelope bytes to a message; *who* signed it and *where*
it is logged are checked by the caller (`trust`, `log.proof`), on the same bytes. Source: SPEC 9.
"""

from typing import Protocol, TypeVar

from protocol import envelope as dsse
from protocol import statement as intoto
from protocol.errors import MalformedError, Schema


class Message(Protocol):
    """What all messages have."""

    @property
    def subject(self) -> str:
        """SHA-256 (hexadecimal) of the artefact that the statement is about."""
        ...


M_co = TypeVar("M_co", bound=Message, covariant=True)


class Kind(Protocol[M_co]):
    """A message class: knows its predicate type and how to read one."""

    PREDICATE: str

    def parse(self, statement: intoto.Statement) -> M_co:
        """Read a message of this kind.

        Raises:
            MalformedError: the predicate is not one.
        """
        ...


def predicate_of(envelope: dsse.Envelope, *, where: str = "envelope") -> str:
    """The predicate type of an envelope's statement, for dispatch.

    Raises:
        MalformedError: not a statement.
    """
    return _statement(envelope, where).predicate_type


def _statement(envelope: dsse.Envelope, where: str) -> intoto.Statement:
    if envelope.payload_type != dsse.PAYLOAD_TYPE:
        raise Schema(f"payloadType is {envelope.payload_type[:60]!r}, not {dsse.PAYLOAD_TYPE}", where=where)
    return intoto.parse(envelope.payload, where=where)


def read(data: bytes, kind: Kind[M_co], *, where: str = "envelope") -> tuple[dsse.Envelope, M_co]:
    """Parse envelope bytes as a message of `kind`.

    Raises:
        MalformedError: not an envelope, or an envelope of something else.
    """
    envelope = dsse.parse(data, where=where)
    statement = _statement(envelope, where)
    if statement.predicate_type != kind.PREDICATE:
        # `parse` refuses this as well, but may first stumble over a field and name that.
        raise Schema(f"is a {statement.predicate_type[:60]!r}, not a {kind.PREDICATE}", where=where)
    try:
        return envelope, kind.parse(statement)
    except MalformedError as error:
        # The predicate's readers know the field; only here is it known in which file.
        error.where = f"{where}.{error.where}" if error.where else where
        raise
