#!/usr/bin/env python3
"""Runs all notebooks, each in its own kernel, and fails at the first that raises. Their outputs are not kept.

With --write the outputs are stored in the notebooks, as in the committed ones.
"""

import argparse
import base64
import io
import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from PIL import Image

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
LIMIT = 400_000
"""Bytes of a notebook with its outputs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="store the outputs in the notebooks")
    write = parser.parse_args().write
    found = sorted(FOLDER.glob("*.ipynb"))
    for path in found:
        start = time.monotonic()
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        client = NotebookClient(
            notebook,
            timeout=120,
            kernel_name="python3",  # the Python that runs this script
            resources={"metadata": {"path": FOLDER}},
            extra_arguments=["--log-level=ERROR"],
        )
        try:
            client.execute()
        except CellExecutionError as error:
            print(f"{path.name}: {error}", file=sys.stderr)
            return 1
        text = nbformat.writes(clean(notebook))  # type: ignore[no-untyped-call]
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {len(text) / 1000:,.0f} kB", flush=True)
        if len(text) > LIMIT:
            print(f"{path.name} is larger than {LIMIT / 1000:.0f} kB: show less in it", file=sys.stderr)
            return 1
        if write:
            path.write_text(text, encoding="utf-8")
    print(f"{len(found)} notebooks work")
    return 0


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Makes pictures smaller, and removes whatever differs between executions with equal results."""
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for cell in notebook.cells:
        cell.metadata = {}
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = base64.b64encode(reduced(base64.b64decode(data["image/png"]))).decode()
            if "text/html" in data:  # the ids that pandas draws for its tables
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}", f"T_{cell.id}", data["text/html"])
            if "text/plain" in data:  # addresses of objects
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+", "", data["text/plain"])
    return notebook


def reduced(png: bytes) -> bytes:
    """The picture in 256 colours, a third of the bytes."""
    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(main())
