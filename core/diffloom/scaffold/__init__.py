"""Scaffold: a complete plugin package, written for an author to change.

Law: installed, the package passes its own tests and `diffloom check` accepts its recipe, for every choice of kinds;
nothing that exists is ever overwritten, and what cannot be finished is not begun.
"""

from diffloom.scaffold.writing import PARTS, Part, names, write

__all__ = ["PARTS", "Part", "names", "write"]
