"""What the API pages make of the roles in docstrings: ``:meth:`load``` becomes a link to what it names."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|attr|exc|data):`~?([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites them in every docstring of the package."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Look for what a role names: in the class, in the module, in the package, or by its whole name."""
        if obj.docstring is None:
            return
        owner = obj.path if obj.is_class else obj.path.rpartition(".")[0]
        name = re.sub(r"\._\w+", "", owner)  # modules whose names begin with _ are shown as the package

        def link(found: re.Match[str]) -> str:
            said = found[1]
            if said.startswith("inferkit."):
                target = said
            elif said[0].isupper():
                target = f"inferkit.{said}"
            elif "." in said:
                return f"`{said}`"
            else:
                target = f"{name}.{said}"
            return f'<autoref identifier="{target}" optional><code>{said}</code></autoref>'

        obj.docstring.value = ROLE.sub(link, obj.docstring.value)
