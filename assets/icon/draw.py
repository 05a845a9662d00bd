"""The app's icon as pixels: icon.svg -> the files in mobile/assets from which Flet makes the icons of each platform.

    make icons

In: icon.svg beside this file. Out: icon.png, which `flet build` frames for Android and iOS and puts on the splash
screen, and what a browser shows of an installed page. Chromium draws; Flet's own framing keeps all of them alike.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tomllib
from pathlib import Path

from flet_platform_assets import IconOptions, load_source, parse_hex_color, render_icons
from PIL import Image
from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PIXELS = 1024
PAGE = {  # in mobile/assets <- the name that Flet gives it
    "favicon.png": "web/favicon.png",
    "icons/icon-192.png": "web/icons/Icon-192.png",
    "icons/icon-512.png": "web/icons/Icon-512.png",
    "icons/icon-maskable-192.png": "web/icons/Icon-maskable-192.png",
    "icons/icon-maskable-512.png": "web/icons/Icon-maskable-512.png",
    "icons/apple-touch-icon-192.png": "web/icons/apple-touch-icon-192.png",
}


def draw(target: Path) -> None:
    """Write all files into the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    (target / "icons").mkdir(exist_ok=True)
    _pixels().save(target / "icon.png", optimize=True)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flet"]
    source, _ = load_source(target / "icon.png")
    options = IconOptions(background=parse_hex_color(settings["icon_background"]))
    made = {
        asset.relative_path: asset.image for asset in render_icons(source, options, platform="web", derived=True).assets
    }
    for name, flets in PAGE.items():
        made[flets].save(target / name, optimize=True)
    # What Flet's page shows until the app is there; it is 200 pixels wide, on a screen of up to twice as many.
    source.resize((400, 400), Image.Resampling.LANCZOS).save(target / "icons" / "loading-animation.png", optimize=True)


def _pixels() -> Image.Image:
    chromium = shutil.which("chromium")
    if not chromium:
        sys.exit("The icon is drawn by Chromium; install it (on Debian: sudo apt-get install -y chromium).")
    svg = (HERE / "icon.svg").read_text(encoding="utf-8")
    html = f"<style>body {{ margin: 0 }} svg {{ display: block; width: {PIXELS}px }}</style>{svg}"
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0  # Chromium's sandbox does not run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if as_root else [])
        page = browser.new_page(viewport={"width": PIXELS, "height": PIXELS})
        page.set_content(html)
        taken = page.screenshot(omit_background=True)
        browser.close()
    return Image.open(io.BytesIO(taken)).convert("RGBA")


if __name__ == "__main__":
    draw(ROOT / "mobile" / "assets")
