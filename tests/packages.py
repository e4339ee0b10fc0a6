"""Installs a small third-party package for a test."""

import importlib
import sys
from pathlib import Path

import pytest


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, entries: str, source: str = "") -> None:
    """Puts a module `elsewhere` with this source on the path, and registers its entry points in a group."""
    (folder / "elsewhere.py").write_text(source)
    installed = folder / "elsewhere-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "elsewhere", raising=False)  # another test's
    importlib.invalidate_caches()
