"""Keeps jsonschema from importing a package that it works without. The Makefile loads this before any other plugin.

nbformat imports jsonschema. If rfc3987-syntax is installed, which JupyterLab requires, jsonschema imports it, and
it builds 38 parsers, which takes a second of CPU time in every test process. They check a format that no notebook has.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # importing it raises ImportError
