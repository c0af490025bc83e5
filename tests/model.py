"""The order book as simply as it can be said: what the compiled book must never differ from."""

from __future__ import annotations

LIMIT = 10**14


class ModelError(Exception):
    """The update cannot be true; the model is stale from now on."""


class ModelBook:
    def __init__(self, grid: set[int]) -> None:
        self.grid = grid
        self.sides: list[dict[int, int]] = [{}, {}]
        self.stale = False

    def refuse(self) -> None:
        self.stale = True
        raise ModelError

    def delta(self, side: int, price: int, change: int) -> int:
        if self.stale or price not in self.grid or abs(change) > LIMIT:
            self.refuse()
        size = self.sides[side].get(price, 0) + change
        if not 0 <= size <= LIMIT:
            self.refuse()
        self.sides[side][price] = size
        return size

    def snapshot(self, *sides: list[tuple[int, int]]) -> None:
        for levels in sides:
            prices = [price for price, _ in levels]
            if len(set(prices)) < len(prices) or not set(prices) <= self.grid:
                self.refuse()
            if any(not 0 <= size <= LIMIT for _, size in levels):
                self.refuse()
        self.sides = [dict(levels) for levels in sides]
        self.stale = False

    def levels(self, side: int) -> list[tuple[int, int]]:
        return sorted(((p, s) for p, s in self.sides[side].items() if s), reverse=True)
