"""Writes all generated pages and names those that have changed."""

from __future__ import annotations

from scripts.reference import FOLDER, PAGES

if __name__ == "__main__":
    for name, render in PAGES.items():
        path, text = FOLDER / name, render()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote docs/reference/{name}")
