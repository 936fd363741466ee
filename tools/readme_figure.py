"""Extract the README's figure from the executed notebook, so that README and report show the same run."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

NOTEBOOK = Path("build/report-executed/10_before_and_after.ipynb")
FIGURE = Path("docs/before_after.png")


def main() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    for output in (output for cell in cells for output in cell.get("outputs", [])):
        if output.get("metadata", {}).get("image/png", {}).get("name") == FIGURE.stem:
            FIGURE.write_bytes(base64.b64decode(output["data"]["image/png"]))
            print(f"wrote {FIGURE}")
            return
    sys.exit(f"{NOTEBOOK} has no figure named {FIGURE.stem}: run make report")


if __name__ == "__main__":
    main()
