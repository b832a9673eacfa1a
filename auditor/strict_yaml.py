"""YAML that means one thing: profiles, plans and threats are read through here.

Proves: the bytes are UTF-8, within the size limit, hold no alias (they expand without bound), no
duplicate key and no tag that would build a foreign object. Does not check what the fields mean.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from protocol.errors import MalformedError, Schema, TooLarge

MAX_FILE = 1 << 18
# Not only YAMLError: explicit tags on other content (`!!timestamp x`, `!!int ""`, `!!bool x`) leave PyYAML as these.
_FAILURES = (yaml.YAMLError, AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


class Loader(yaml.SafeLoader):
    """Safe YAML without aliases (which expand without bound) and without duplicate keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse an alias before anything is built from it.

        Raises:
            YAMLError: an alias.
        """
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 (PyYAML's signature)
        """Build a mapping whose keys all differ.

        Raises:
            YAMLError: a key occurs twice.
        """
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError("a key occurs twice in one mapping")
        return mapping


def parse_mapping(data: bytes, *, where: str, limit: int = MAX_FILE) -> dict[str, Any]:
    """Read one document that is a mapping with names as keys.

    Args:
        data: the file's bytes.
        where: the file, for errors.
        limit: largest size, in bytes; looked at first.

    Raises:
        TooLarge: over the limit.
        MalformedError: not YAML of this kind.
        Schema: not a mapping of names.
    """
    if len(data) > limit:
        raise TooLarge(f"over {limit} bytes", where=where)
    try:
        value = yaml.load(data.decode("utf-8"), Loader=Loader)  # noqa: S506 (a SafeLoader)
    except _FAILURES as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MalformedError(f"not YAML: {reason}", where=where) from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Schema("not a mapping of names", where=where)
    return value


def refuse_unknown(value: Mapping[Any, Any], names: set[str], where: str) -> None:
    """Refuse fields that nobody reads.

    Raises:
        Schema: a field that is not one of `names`.
    """
    unknown = set(value) - names
    if unknown:
        raise Schema(f"unknown field {min(map(str, unknown))[:60]!r}", where=where)
