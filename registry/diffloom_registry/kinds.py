"""Kinds of components, and what an entry point says about one of them."""

from __future__ import annotations

from dataclasses import dataclass

from diffloom_registry.errors import BrokenPlugin


@dataclass(frozen=True)
class Kind:
    """One kind of component: all that implement one interface.

    Attributes:
        name: The kind's name; its entry-point group is ``prefix.name``.
        interface: ``package.module:Class`` that every component subclasses; not imported before.
        summary: What components of this kind are for, in one sentence.
        extras: ``package.module:Model``, a pydantic model of the keys that every component of the kind
            accepts beside those of its constructor.
    """

    name: str
    interface: str
    summary: str
    extras: str | None = None


@dataclass(frozen=True)
class Entry:
    """One published name; nothing has been imported for it.

    Attributes:
        kind: Name of the kind (the last part of the entry-point group).
        name: The published name.
        value: The entry point's value, ``package.module:Class``.
        distribution: The distribution that publishes it; ``None`` if it was added in this process.
        version: Version of the distribution.
    """

    kind: str
    name: str
    value: str
    distribution: str | None = None
    version: str | None = None

    @property
    def source(self) -> str:
        """Where it comes from, for a reader."""
        return f"{self.distribution} {self.version or ''}".strip() if self.distribution else "this process"

    @property
    def where(self) -> str:
        """Kind, name, origin and value, for the head of an error."""
        return f"{self.kind} {self.name!r} from {self.source} ({self.value})"

    def broken(
        self, message: str, *, expected: str | None = None, got: str | None = None, remedy: str | None = None
    ) -> BrokenPlugin:
        """Make the error that says this entry cannot be used."""
        return BrokenPlugin(
            message,
            distribution=self.distribution,
            version=self.version,
            value=self.value,
            where=self.where,
            expected=expected,
            got=got,
            remedy=remedy,
        )
