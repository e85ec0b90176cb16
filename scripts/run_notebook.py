"""Runs a notebook's cells in order, in this process, and writes what they print into it."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_cells(notebook: dict[str, Any]) -> list[str]:
    """Runs the code cells of a notebook one after the other in one namespace.

    Args:
      notebook: what its file holds; every code cell gets its number and its output.

    Returns:
      What each code cell printed.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    printed: list[str] = []
    for cell in (cell for cell in notebook["cells"] if cell["cell_type"] == "code"):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile("".join(cell["source"]), f"<cell {len(printed) + 1}>", "exec"), names)
        printed.append(out.getvalue())
        lines = out.getvalue().splitlines(keepends=True)
        cell["execution_count"] = len(printed)
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if lines else []
    return printed


def main() -> int:
    """Runs the notebook that the command line names, and shows what its cells print."""
    if len(sys.argv) != 2:
        print(f"usage: {sys.argv[0]} NOTEBOOK", file=sys.stderr)
        return 2
    file = Path(sys.argv[1])
    notebook = json.loads(file.read_text())
    print("\n".join(run_cells(notebook)))
    file.write_text(json.dumps(notebook, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
