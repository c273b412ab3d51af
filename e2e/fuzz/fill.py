"""Puts real ids and names into generated requests, so that they get past the first look-up.

A value is taken from team A or, for somebody outside, now and then from their own team. What was
taken is remembered, and with it a *ghost*: a value of the same shape that never existed.
"""

from __future__ import annotations

import random
import re
from urllib.parse import quote, quote_plus

from world import CANARY, World

# How often a place that could hold something real does.  Higher, and made-up values are hardly
# tried; lower, and most requests end at the first look-up.
REAL_PATH = 0.85
REAL_FIELD = 0.5
# How often an optional parameter that was left out is added.
ADDED_QUERY = 0.25
# How often somebody outside uses what is theirs.
OWN = 0.25
# What nobody shares, so that everybody uses their own, too.
ALWAYS_OWN = {"ssh_key"}
# How often they mistype a name of team A.
NEARLY = 0.1

# Which kind of value stands under which name of a parameter or of a field of a body.
PATH_KINDS = {
    "run": "run",
    "experiment": "experiment",
    "team": "team",
    "user": "user",
    "invitation": "invitation",
    "account": "account",
    "key": "key",
    "share": "share",
    "token": "token",
    "path": "path",
    "credential": "credential",
    "datastore": "datastore",
}
QUERY_KINDS = {
    "run": "run",
    "user": "user",
    "created_by": "user",
    "name": "run",
    "cursor": "cursor",
    "after": "path",
    "resource": "resource",
    "with": "datastore",
    "machine": "machine",
}
FIELD_KINDS = {
    "team": "team",
    "to": "user",
    "token": "token",
    "username": "user",
    "name": "run",
    "paths": "path",
    "content": "hash",
    "id": "snapshot",
    "datastore": "datastore",
}
# Where the same name means something else in one operation.
OF_OPERATION = {
    ("log_list", "cursor"): "log_cursor",
    ("log_follow", "cursor"): "log_cursor",
    ("run_retry", "run"): "failed",
    ("ssh_key_remove", "key"): "ssh_key",
    ("datastore_list", "name"): "none",
    ("datastore_file_list", "path"): "data_path",
    ("datastore_file_list", "after"): "data_path",
    ("datastore_diff", "after"): "data_path",
    ("datastore_file_fetch", "paths"): "data_path",
    ("datastore_part_list", "after"): "none",
    ("datastore_file_download", "path"): "data_path",
    ("datastore_part_list", "datastore"): "upload",
    ("datastore_part_put", "datastore"): "upload",
    ("datastore_parts_put", "datastore"): "upload",
    ("datastore_commit", "datastore"): "upload",
    ("datastore_update", "datastore"): "upload",
    ("datastore_archive_put", "datastore"): "archive",
    ("credential_update", "credential"): "own_credential",
    ("share_open", "token"): "share_token",
    ("link_follow", "token"): "link_token",
    ("user_login", "username"): "login",
    ("service_account_create", "name"): "none",
    ("service_account_key_create", "name"): "none",
    ("key_create", "name"): "none",
}
# What is tried by those who have none of their own.
INSTEAD = {"upload": "datastore", "archive": "datastore", "own_credential": "credential"}
# What is no thing of team A: a place in a list, whose made-up one is refused for its form, and
# the machine, which is the same for everybody.
WITHOUT_GHOST = {"cursor", "machine"}
# How often the fields of a body are some that stand ready, where there are any.
READY_FIELDS = 0.5
# How often something real stands in a header that may be there.
REAL_HEADER = 0.8
# Parameters that exclude each other: the first is mostly left out.
EXCLUSIVE = ("tail", "cursor")

# A canary, whole or mistyped; and what a ghost has in its place.
WORD = re.compile(r"zq(leak[a-z]*)", re.IGNORECASE)
EITHER_WORD = re.compile(r"z[qy](leak[a-z]*)", re.IGNORECASE)

# How a value may stand in a request or an answer.
FORMS = (str, lambda it: quote(it, safe="/"), lambda it: quote(it, safe=""), quote_plus)


class Filler:
    """Fills the requests of one user; what it chooses depends on the seed alone."""

    def __init__(self, world: World, role: str):
        self.world = world
        self.role = role
        # Nobody takes away from themselves what the rest of the requests needs.
        person = world.people[role]
        self.kept = {person.name, person.user_id} if role != "outsider" else set()

    def fill(self, name: str, case, seed: str) -> dict[str, str]:
        """Changes the case; answers with the values of team A in it and their ghosts."""
        dice = random.Random(seed)
        ghosts: dict[str, str] = {}

        def real(kind: str) -> str | None:
            if not self.world.theirs.get(kind):
                kind = INSTEAD.get(kind, kind)
            theirs = [v for v in self.world.theirs.get(kind, []) if v not in self.kept]
            if kind == "token" and self.role != "outsider":
                theirs += self.world.open_tokens
            own = self.world.own.get(kind, [])
            if kind in ALWAYS_OWN and own and dice.random() < REAL_FIELD:
                return dice.choice(own)
            if self.role == "outsider" and own and dice.random() < OWN:
                return dice.choice(own)
            if not theirs:
                return None
            value = dice.choice(theirs)
            if self.role == "outsider" and CANARY.search(value) and dice.random() < NEARLY:
                # Close enough for "did you mean".
                value = value[:-1]
            if kind not in WITHOUT_GHOST:
                ghosts[value] = ghost(value)
            return value

        def kind_of(kinds: dict[str, str], field: str) -> str | None:
            return OF_OPERATION.get((name, field), kinds.get(field))

        path = dict(case.path_parameters or {})
        if "number" in path and dice.random() < REAL_FIELD:
            path["number"] = "0"
        for field in path:
            kind = kind_of(PATH_KINDS, field)
            if kind and dice.random() < REAL_PATH and (value := real(kind)):
                path[field] = quote(value, safe="/" if field == "path" else "")
        if path:
            case.path_parameters = path
        declared = {parameter.name for parameter in case.operation.query}
        query = dict(case.query or {})
        for field, kind in QUERY_KINDS.items():
            chance = REAL_FIELD if field in query else ADDED_QUERY
            if field in declared and dice.random() < chance and (value := real(kind)):
                query[field] = value
        if all(field in query for field in EXCLUSIVE) and dice.random() < REAL_FIELD:
            del query[EXCLUSIVE[0]]
        if query:
            case.query = query
        for parameter in case.operation.headers:
            if dice.random() < REAL_HEADER:
                self._header(case, parameter.name, dice)
        if name in self.world.ready_bytes and dice.random() < READY_FIELDS:
            case.body = self.world.ready_bytes[name]
        ready = self.world.ready.get(name)
        if isinstance(case.body, dict) and ready and dice.random() < READY_FIELDS:
            case.body = merged(case.body, dice.choice(ready))
        elif isinstance(case.body, (dict, list)):
            case.body = self._body(case.body, dice, lambda field: real(kind_of(FIELD_KINDS, field)))
        return ghosts

    def _header(self, case, field: str, dice: random.Random) -> None:
        values = self.world.headers.get(field)
        if field == "Idempotency-Key":
            case.headers[field] = f"key-{dice.randrange(1 << 32)}"
        elif values and dice.random() < REAL_FIELD:
            case.headers[field] = dice.choice(values)
        else:
            case.headers.pop(field, None)

    def _body(self, value, dice, real, name: str | None = None):
        if isinstance(value, dict):
            return {key: self._body(inner, dice, real, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._body(inner, dice, real, name) for inner in value]
        if name in FIELD_KINDS and isinstance(value, str) and dice.random() < REAL_FIELD:
            return real(name) or value
        return value


def merged(body: dict, fields: dict) -> dict:
    """A body with some of its fields replaced, also further down."""
    result = dict(body)
    for name, value in fields.items():
        inner = result.get(name)
        # What has a kind is one of several shapes, and is replaced as a whole.
        both = isinstance(value, dict) and isinstance(inner, dict) and "kind" not in value
        result[name] = merged(inner, value) if both else value
    return result


def ghost(value: str) -> str:
    """Something of the same shape that was never there."""
    if WORD.search(value):
        return WORD.sub(r"zy\1", value)
    # The front of an id is a time, and the end of some is a checksum or an index: the middle.
    dice = random.Random(value)
    middle = range(len(value) // 3, len(value) - len(value) // 3)
    letters = list(value)
    for at in middle:
        letters[at] = _other(letters[at], dice)
    return "".join(letters)


def _other(letter: str, dice: random.Random) -> str:
    for letters in ("0123456789", "abcdef", "ghjkmnpqrstvwxyz", "ABCDEFGHJKMNPQRSTVWXYZ"):
        if letter in letters:
            return dice.choice(letters)
    return letter


def twin(request, ghosts: dict[str, str]):
    """The same request, down to the last byte, about things that never were."""
    other = request.copy()
    other.url = _replaced(request.url, ghosts)
    if isinstance(request.body, bytes):
        other.body = _replaced(request.body.decode("latin-1"), ghosts).encode("latin-1")
        other.headers["Content-Length"] = str(len(other.body))
    elif request.body:
        other.body = _replaced(request.body, ghosts)
        other.headers["Content-Length"] = str(len(other.body.encode()))
    return other


def _replaced(text: str, ghosts: dict[str, str]) -> str:
    for real, made_up in ghosts.items():
        for form in FORMS:
            text = text.replace(form(real), form(made_up))
    return text


def levelled(text: str, ghosts: dict[str, str]) -> str:
    """An answer without the difference that the request itself made."""
    for real, made_up in ghosts.items():
        for form in FORMS:
            text = text.replace(form(made_up), "§").replace(form(real), "§")
    return EITHER_WORD.sub(r"z?\1", text)
