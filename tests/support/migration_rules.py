"""What a migration may say while the previous release serves on the same database, and why it may not say the rest."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from api.store.outside import INDEX, MARK, statements

STABLE: Final = r"now\(\)|transaction_timestamp\(\)|statement_timestamp\(\)"  # one value for all rows


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A statement about a table that others use. `holds_if`: it is fine when this matches too."""

    refused: str
    reason: str
    holds_if: str = r"(?!)"


EVERYWHERE: Final = (
    Rule(refused=r"^(drop|truncate)\b|\bdrop (column|constraint|default|not null)\b", reason="the previous release uses it",
         holds_if=r"^drop index concurrently if exists"),
    Rule(refused=r"\brename\b|\bset schema\b", reason="the previous release knows the old name"),
    Rule(refused=r"\balter( column)? \w+ (set|type|drop)\b|\balter type\b", reason="the previous release may write otherwise, and rows are read or rewritten under a lock"),
    Rule(refused=r"\badd column (if not exists )?\w+ [^,]*not null", holds_if=r"not null[^,]*default|default[^,]*not null",
         reason="the previous release does not fill it in"),
    Rule(refused=r"\b(lock table|cluster|vacuum full|refresh materialized|set (un)?logged|set tablespace|set access method)\b",
         reason="it shuts everybody out for as long as it takes"),
    Rule(refused=r"\breindex\b", holds_if=r"\bconcurrently\b", reason="it shuts writers out: reindex concurrently"),
)  # fmt: skip
INSIDE: Final = (
    Rule(refused=r"^create (unique )?index\b", reason="writers wait while it is built: create index concurrently, in a file outside a transaction"),
    Rule(refused=r"\badd (constraint|check|foreign key|unique|primary key|exclude)\b", holds_if=r"\bnot valid\b|\busing index\b",
         reason="all rows are checked under a lock: not valid, then validate constraint outside a transaction"),
    Rule(refused=r"\bvalidate constraint\b", reason="all rows are read with the locks of the transaction: outside a transaction"),
    Rule(refused=r"\badd column [^,]*\b(references|check|unique|primary key)\b", reason="a constraint is added by itself, not valid"),
    Rule(refused=r"\badd column [^,]*\b(small|big)?serial\b|\badd column [^,]*\bgenerated\b", reason="every row is rewritten under a lock"),
    Rule(refused=rf"\badd column [^,]*\bdefault (?!({STABLE}))[^,]*\w+\(", reason="a default that differs from row to row rewrites the table under a lock"),
    Rule(refused=r"^(update|delete|insert|with|merge)\b", reason="it takes as long as there are rows, with the locks of the transaction: outside a transaction"),
)  # fmt: skip
OUTSIDE: Final = (
    (INDEX.pattern, "an index"),
    (r"drop index concurrently if exists \w+", "an index that goes"),
    (r"alter table \w+ validate constraint \w+", "a check of all rows"),
    (r"insert into .* on conflict .*do nothing", "a backfill that may be repeated"),
)


def offences(text: str) -> list[str]:
    """Of one migration: `statement: reason`."""
    return list(offences_outside(text) if text.startswith(MARK) else offences_inside(text))


def offences_inside(text: str) -> Iterator[str]:
    """Whatever is about tables that the migration itself made is nobody else's yet. Bodies of functions and of `do` are not
    read: a test looks at what a migration really did."""
    ours: set[str] = set()
    for statement in plain(text):
        created = re.match(r"create table (?:if not exists )?(\w+)", statement)
        if created is not None:
            ours.add(created[1])
        if "concurrently" in statement:
            yield f"{statement}: Postgres refuses it in a transaction"
        if created is None and not about(statement, ours):
            yield from broken(statement, (*EVERYWHERE, *INSIDE))


def offences_outside(text: str) -> Iterator[str]:
    for statement in plain(text):
        yield from broken(statement, EVERYWHERE)
        if not any(re.match(pattern, statement, re.S) for pattern, _ in OUTSIDE):
            known = ", ".join(name for _, name in OUTSIDE)
            yield f"{statement}: outside a transaction there is only what may be repeated: {known}"


def plain(text: str) -> list[str]:
    """The statements in lower case, one line each, without what stands in $$ and in quotes."""
    without = re.sub(
        r"'[^']*'", "''", re.sub(r"\$\$.*?\$\$", "''", re.sub(r"--[^\n]*", "", text), flags=re.S)
    )
    return [" ".join(statement.lower().split()) for statement in statements(without)]


def about(statement: str, ours: set[str]) -> bool:
    """Whether it changes a table of this migration alone. A backfill into one still reads others."""
    target = re.match(
        r"(?:create (?:unique )?index (?:if not exists )?\w+ on|alter table|insert into) (\w+)", statement
    )
    return target is not None and target[1] in ours and " from " not in statement


def broken(statement: str, rules: Sequence[Rule]) -> Iterator[str]:
    for part in parts(statement):
        for rule in rules:
            if re.search(rule.refused, part) and not re.search(rule.holds_if, part):
                yield f"{part}: {rule.reason}"


def parts(statement: str) -> list[str]:
    """The actions of one `alter table`, since what excuses one does not excuse its neighbour."""
    if not statement.startswith("alter table"):
        return [statement]
    depth, found = 0, [""]
    for letter in statement:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found]
