"""The simple values of the exchange's messages, as types that msgspec checks. Not here: messages."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

Name: TypeAlias = Annotated[str, Meta(min_length=1)]  # of a thing that a message is about
Sid: TypeAlias = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Seq: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
CommandId: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Side: TypeAlias = Literal["yes", "no"]
UnixMs: TypeAlias = Annotated[int, Meta(ge=0, le=9_223_372_036_854)]  # to 2262: what int64 nanoseconds hold
Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
UnixS: TypeAlias = Annotated[int, Meta(ge=0, le=9_223_372_036)]
