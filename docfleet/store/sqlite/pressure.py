"""How much is done at once, on SQLite."""

from __future__ import annotations

from collections.abc import Mapping

from docfleet.store.sqlite.connection import Database
from docfleet.store.sqlite.rows import text
from docfleet.store.sqlite.statements import sql


class SqlitePressure(Database):
    """Implements `docfleet.store.pressure.Pressure`."""

    def rest(self, reasons: Mapping[int, str], seconds: float) -> None:
        """Replace all rests by these; a power cut may forget them, and ends every worker anyway."""
        until = self._clock() + seconds
        with self._writing(durable=False) as connection:
            connection.execute(sql("end_all_rests"))
            rows = [{"slot": slot, "reason": text(reason), "until": until} for slot, reason in reasons.items()]
            connection.executemany(sql("rest"), rows)

    def resting(self, slot: int) -> str | None:
        """Return why the worker in the slot is to rest now, or None."""
        rows = self._rows("resting", slot=slot, now=self._clock())
        return str(rows[0]["reason"]) if rows else None

    def max_concurrent(self) -> int | None:
        """Return the cap, or None."""
        rows = self._rows("max_concurrent")
        return int(rows[0]["value"]) if rows else None

    def set_max_concurrent(self, most: int | None) -> None:
        """Set or lift the cap, durably."""
        with self._writing(durable=True) as connection:
            if most is None:
                connection.execute(sql("lift_max_concurrent"))
            else:
                connection.execute(sql("set_max_concurrent"), {"value": most})
