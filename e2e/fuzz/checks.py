"""What must hold for every answer, whoever asks and whatever was asked."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from urllib.parse import unquote

from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from world import CANARY, World

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]

# The one envelope: which status belongs to which code.
STATUS_OF = {
    "invalid": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "too_large": 413,
    "too_many": 429,
    "internal": 500,
    "unavailable": 503,
    "full": 507,
}


@dataclass(frozen=True)
class Problem:
    """Something that must not be: where, what, and how to see it again."""

    operation: str
    title: str
    detail: str
    curl: str


def described(case, response) -> list[tuple[str, str]]:
    """Where the answer is not what the description of the API promises."""
    found = []
    try:
        case.validate_response(response, checks=CHECKS)
    except FailureGroup as failures:
        failed = failures.exceptions
        found += [(it.title, it.message) for it in failed if not _is_list_of_fields(case, it)]
    status = response.status_code
    documented = case.operation.definition.raw["responses"]
    if status < 400 and str(status) not in documented:
        found.append(("A status that is not described", f"{status} is not in {list(documented)}"))
    if status >= 400:
        found += _envelope(status, response.text)
    return found


def _is_list_of_fields(case, failure) -> bool:
    """Whether all that is wrong is that a structure inside of a body is a list of its fields.

    The server reads JSON with serde, for which that is another way to write a structure. At the
    top of a body it is refused.
    """
    blamed = re.search(r"in body - (.+): Incorrect type", failure.message)
    value = case.body
    for name in blamed.group(1).split(" -> ") if blamed else []:
        value = value.get(name) if isinstance(value, dict) else None
    return blamed is not None and isinstance(value, list)


def _envelope(status: int, text: str) -> list[tuple[str, str]]:
    try:
        error = json.loads(text)["error"]
        code, message = error["code"], error["message"]
    except (ValueError, KeyError, TypeError):
        return [("An error outside the envelope", f"{status}: {text[:300]}")]
    found = []
    if STATUS_OF.get(code) != status:
        found.append(("A code with the status of another", f"{status} says {code}"))
    if not message:
        found.append(("An error without words", text[:300]))
    return found


class Leaks:
    """Words of team A in answers to somebody outside, who has not said them themselves."""

    def __init__(self, worlds: list[World]):
        self.secrets = {secret for world in worlds for secret in world.secrets()}
        # What they have named like a thing of team A, and what comes back from then on.
        self.uttered = ""

    def of(self, response) -> list[tuple[str, str]]:
        request = response.request
        body = request.body or b""
        body = body.decode("utf-8", "replace") if isinstance(body, bytes) else str(body)
        sent = f"{request.url}\n{unquote(request.url)}\n{request.headers}\n{body}".lower()
        if request.method != "GET" and response.status_code < 300:
            self.uttered += "\n".join(self._secret_in(sent))
        headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
        text = f"{headers}\n{response.text}"
        said = sent + self.uttered
        found = sorted(word for word in self._secret_in(text.lower()) if word not in said)
        if not found:
            return []
        return [("Data of another team", f"{', '.join(found)}\n{text[:1000]}")]

    def _secret_in(self, text: str) -> set[str]:
        return set(CANARY.findall(text)) | {word for word in self.secrets if word in text}
