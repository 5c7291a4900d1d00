"""The page in a browser: it lays out, is not blank, and never scrolls sideways as a whole."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--allow-file-access-from-files"),
]
# Frames, because a window cannot be as narrow as a telephone; measured with all folds open.
FRAMES = """<!DOCTYPE html><body style="margin:0">
<iframe src="report.html" style="width:400px;height:3000px;border:0"></iframe>
<iframe src="report.html" style="width:1280px;height:3000px;border:0"></iframe>
<p id="found"></p><script>
window.onload = () => {
  const found = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach((one) => { one.open = true; });
    const root = page.documentElement;
    return `${root.clientWidth}:${root.scrollWidth}:${root.scrollHeight}`;
  });
  document.getElementById("found").textContent = `[${found.join(" ")}]`;
};
</script></body>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, full):
    """A folder with the page and a page of frames around it."""
    folder = tmp_path_factory.mktemp("browser")
    shutil.copy(full, folder)
    (folder / "frames.html").write_text(FRAMES, encoding="utf-8")
    narrow = '<body style="margin:0"><iframe src="report.html" style="width:400px;height:3000px">'
    (folder / "narrow.html").write_text(narrow, encoding="utf-8")
    return folder


def browse(folder, page: str, *options: str) -> str:
    """Open a page of the folder and return what the browser prints."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *options]
    done = subprocess.run(
        [*command, (folder / page).as_uri()],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_browser_finds_the_structure(folder):
    dom = browse(folder, "report.html", "--dump-dom")
    written = (folder / "report.html").read_text()
    for tag in ("<section", "<figure", "<tr id=", "<svg"):
        assert dom.count(tag) == written.count(tag) > 1, tag


def test_the_page_does_not_scroll_sideways(folder):
    dom = browse(folder, "frames.html", "--dump-dom", "--window-size=1400,900")
    narrow, wide = re.findall(r"(\d+):(\d+):(\d+)", re.search(r"\[(.*?)\]", dom)[1])
    assert narrow[:2] == ("400", "400")
    assert wide[:2] == ("1280", "1280")
    assert int(narrow[2]) > int(wide[2]) > 3000


@pytest.mark.parametrize(("page", "width"), [("report.html", 1280), ("narrow.html", 500)])
def test_the_page_is_not_blank(folder, page, width):
    from matplotlib.image import imread

    picture = folder / f"{width}.png"
    browse(folder, page, f"--window-size={width},3000", f"--screenshot={picture}")
    pixels = (imread(picture)[:, :, :3] * 255).round().astype("uint32")
    assert pixels.shape[1] == width
    colours = pixels[:, :, 0] * 65536 + pixels[:, :, 1] * 256 + pixels[:, :, 2]
    for band in range(0, 3000, 600):  # something is written everywhere
        assert len(set(colours[band : band + 600].ravel().tolist())) > 50
