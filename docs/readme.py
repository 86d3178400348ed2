"""README.md from nbs/index.ipynb: the text, the code and the printed outputs, without the export marks."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _code(cell: dict) -> str:
    source = "".join(cell["source"])
    if re.search(r"^#\|\s*hide\b", source, re.M):
        return ""
    shown = "\n".join(line for line in source.splitlines() if not line.startswith("#|"))
    blocks = [f"```python\n{shown}\n```"]
    for output in cell.get("outputs", []):
        text = "".join(output.get("text", "") or output.get("data", {}).get("text/plain", ""))
        blocks += [f"```text\n{text.rstrip()}\n```"] if text.strip() else []
    return "\n\n".join(blocks)


def readme_text(index: Path) -> str:
    "The Markdown that `index` generates."
    cells = json.loads(index.read_text(encoding="utf-8"))["cells"]
    parts = ["".join(c["source"]) if c["cell_type"] == "markdown" else _code(c) for c in cells]
    body = "\n\n".join(part.strip() for part in parts if part.strip())
    body = body.replace("](../", "](")  # links and pictures are relative to nbs/ there and to the top here
    return f"<!-- made from nbs/index.ipynb by `make readme`: edit the notebook -->\n\n{body}\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme_text(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
    print("README.md written")
