"""Lets the original client be imported by CPython 3.11 and later.

Until Python 3.10 an f-string showed a member of `class Colour(str, Enum)` as its value; since
then it shows `Colour.name`.  The client builds the names of its colours that way and does not
start otherwise.  This gives such members their old text back; enumerations that say for
themselves how they are shown are left alone.
"""

import enum
import sys


def _shown(member, how):
    kind = type(member)
    mixed_in = isinstance(member, (str, int)) and not issubclass(kind, enum.ReprEnum)
    if mixed_in and kind.__str__ is enum.Enum.__str__:
        return format(member.value, how)
    return _of_this_python(member, how)


if sys.version_info >= (3, 11):
    _of_this_python = enum.Enum.__format__
    enum.Enum.__format__ = _shown
