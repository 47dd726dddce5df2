"""`python -m tests.viewer.pictures [FOLDER]`: the screenshots of docs/viewer.md, of a farm that is made for them."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from tests.parts.browser import come_in, open_browser
from tests.parts.whole_farm import WholeFarm, open_whole_farm
from tests.viewer.demo import furnish

MOST_BYTES = 150_000
# Name, page, scheme, width, height.
SHOTS = [
    ("jobs", "#/jobs", "light", 1280, 800),
    ("job", "#/job/{good}", "dark", 1200, 640),
    ("failure", "#/job/{bad}", "light", 390, 844),
    ("farm", "#/farm", "light", 1280, 900),
    ("deployment", "#/deployment/{deployment}", "dark", 1280, 720),
]


def shoot(browser: Browser, farm: WholeFarm, folder: Path) -> list[Path]:
    """Log in, visit every page, keep a picture of each. Raises ValueError for one that is too large to be kept."""
    made = furnish(farm)
    folder.mkdir(parents=True, exist_ok=True)
    page = browser.new_page()
    come_in(page, farm.url, (farm.state / "token").read_text().strip())
    written = []
    for name, place, scheme, width, height in SHOTS:
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
        page.goto(f"{farm.url}{place.format(**made)}")
        page.locator("#connection.open").wait_for()
        page.wait_for_timeout(2500)
        path = folder / f"{name}.png"
        page.screenshot(path=path)
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} has {path.stat().st_size} bytes")
        written.append(path)
    return written


def main() -> None:
    """Everything is started for it and ended after it."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "viewer"
    with tempfile.TemporaryDirectory() as home, open_whole_farm(Path(home)) as farm:
        farm.start("--slots", "6")
        with open_browser() as browser:
            for path in shoot(browser, farm, folder):
                print(path, path.stat().st_size)
        farm.stop()


if __name__ == "__main__":
    main()
