"""The report of a run in Chromium: offline, in both colour schemes, on a desktop and a phone."""

import itertools
import shutil
import time

import made_runs
import numpy as np
import pytest
from PIL import Image

from ae_jax.report import run_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")

FLAGS = (
  *("no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
  *("disable-background-networking", "disable-component-update", "disable-sync"),
)
SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
EXAMPLES = made_runs.images(40)
FIND = """(name) => {  // the first element of a class, in any shadow root
  const within = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.classList.contains(name)) return element;
      const found = element.shadowRoot && within(element.shadowRoot);
      if (found) return found;
    }
  };
  return within(document);
}"""
PLACE = """([class_, point]) => {  // the position on the screen of a point of a class of the map
  const named = ({ model }) => (model.renderers ?? []).some(({ name }) => name === class_);
  const view = Object.values(Bokeh.index.roots).find(named);
  const { glyph, data_source: { data } } = view.model.renderers.find(({ name }) => name === class_);
  const box = view.canvas_view.el.getBoundingClientRect();
  const place = (axis, scale) => scale.compute(data[glyph[axis].field][point]);
  return [box.left + place("x", view.frame.x_scale), box.top + place("y", view.frame.y_scale)];
}"""


SEEN = """(class_) => {  // the columns that the renderer of a class of the map draws
  const all = Object.values(Bokeh.index.roots).flatMap(({ model }) => model.renderers ?? []);
  const { glyph } = all.find(({ name }) => name === class_);
  return [glyph.x.field, glyph.y.field];
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
  """The report of a run of 50 epochs, with figures of every kind and 1,000 images in its map."""
  folder = tmp_path_factory.mktemp("runs") / "made"
  made_runs.make(folder, epochs=50, found=made_runs.every_kind(EXAMPLES))
  run_report.write(folder)
  return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
  """Chromium."""
  from playwright import sync_api

  with sync_api.sync_playwright() as playwright:
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS])
    yield launched
    launched.close()


@pytest.fixture
def opened(browser, report):
  """Returns a function (width, scheme) that opens the report; checks at the end for errors and network requests."""
  complaints, requests, contexts = [], [], []

  def open_page(width=1100, scheme="light"):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
    contexts.append(context)
    context.set_default_timeout(120_000)  # milliseconds; the machine may be busy
    tab = context.new_page()
    tab.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    begun = time.perf_counter()
    tab.goto(report.as_uri())
    tab.wait_for_function("() => document.readyState === 'complete' && document.documentElement.dataset.drawn")
    print(f"{width} pixels, {scheme}: drawn after {time.perf_counter() - begun:.2f} s")
    return tab

  yield open_page
  for context in contexts:
    context.close()
  assert not complaints
  assert set(requests) == {report.as_uri()}


def seen(element, path):
  """Returns a screenshot of an element as an array of RGB values."""
  element.screenshot(path=path)
  with Image.open(path) as image:
    return np.asarray(image.convert("RGB")).astype(int)


def sample_quality(picture, example):
  """Returns the correlation of a screenshot with the example [28, 28, 1] that it shows, enlarged by an integer."""
  scale = len(picture) // 28
  return np.corrcoef(picture[scale // 2 :: scale, scale // 2 :: scale, 0].ravel(), example.ravel())[0, 1]


def until(tab, condition):
  """Waits until a condition holds; returns whether it does."""
  for _ in range(100):
    if condition():
      return True
    tab.wait_for_timeout(50)
  return False


def test_every_control_works(opened, tmp_path):
  tab = opened()
  assert int(tab.evaluate("document.documentElement.dataset.drawn")) == tab.locator("[data-chart]").count() > 6

  explorer = tab.locator("[data-explorer]")
  shown, sliders = explorer.locator(".seen"), explorer.locator("input[type=range]")
  pictures = [seen(shown, tmp_path / "0.png")]
  for key, slider in (("ArrowRight", 0), ("End", 1)):
    sliders.nth(slider).focus()
    tab.keyboard.press(key)
    pictures.append(seen(shown, tmp_path / f"{key}.png"))
  explorer.locator("select").select_option("1")
  pictures.append(seen(shown, tmp_path / "pair.png"))
  explorer.locator(".contact").click(position={"x": 3, "y": 3})
  pictures.append(seen(shown, tmp_path / "corner.png"))
  assert sample_quality(pictures[-1], EXAMPLES[9 * 9 % 40]) > 0.99  # the first image of the second pair of directions
  assert all(picture.std() > 5 for picture in pictures)  # none is empty
  assert all((a != b).any() for a, b in itertools.pairwise(pictures))
  assert sliders.first.get_attribute("aria-valuetext") == f"-3.0 {SIGMA}"
  assert f"direction 3 -3.0 {SIGMA}" in shown.get_attribute("aria-label")

  chart = tab.locator(".map [data-chart]")
  chart.scroll_into_view_if_needed()
  before = seen(chart, tmp_path / "pca.png")
  tab.mouse.move(*tab.evaluate(PLACE, ["3", 5]))
  tab.wait_for_function(f"() => ({FIND})('thumb')")
  thumbnail = tab.evaluate_handle(FIND, "thumb").as_element()
  assert sample_quality(seen(thumbnail, tmp_path / "thumb.png"), EXAMPLES[53 % 40]) > 0.99  # the sixth of its class
  assert "class 3" in thumbnail.evaluate("element => element.parentElement.textContent")
  tab.mouse.move(5, 5)
  tab.locator(".map label", has_text="t-SNE").click()
  assert until(tab, lambda: (seen(chart, tmp_path / "tsne.png") != before).mean() > 0.01)
  after = seen(chart, tmp_path / "tsne.png")
  assert tab.evaluate(SEEN, "3") == ["x1", "y1"]
  tab.locator(".map button", has_text="3").click()
  assert tab.locator(".map button", has_text="3").get_attribute("aria-pressed") == "false"
  assert until(tab, lambda: (seen(chart, tmp_path / "without.png") != after).any())

  curves = tab.locator("[data-chart]").first
  before = seen(curves, tmp_path / "curves.png")
  tab.get_by_role("button", name="training").click()
  assert until(tab, lambda: (seen(curves, tmp_path / "test.png") != before).any())


def test_report_fits_a_phone_and_is_accessible(opened, tmp_path):
  tab = opened(width=360)
  assert tab.evaluate("document.documentElement.scrollWidth") == 360
  tab.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
  assert tab.evaluate("document.documentElement.scrollWidth") == 360
  sizes = tab.locator("p, td, th, figcaption, button").evaluate_all("all => all.map(e => getComputedStyle(e).fontSize)")
  assert min(float(size.removesuffix("px")) for size in sizes) >= 12
  assert seen(tab, tmp_path / "phone.png").std() > 10
  named = "all => all.every(each => (each.getAttribute('aria-label') || each.alt || '').trim())"
  assert tab.locator("img, [role=img], [role=group], nav").evaluate_all(named)
  controls = "[...document.querySelectorAll('input, select')]"  # without those in the shadow roots of BokehJS
  assert tab.evaluate(f"{controls}.length && {controls}.every(each => each.labels.length === 1)")


def test_charts_follow_the_colour_scheme(opened, tmp_path):
  light, dark = opened(scheme="light"), opened(scheme="dark")
  day, night = seen(light, tmp_path / "light.png"), seen(dark, tmp_path / "dark.png")
  assert day.mean() > 180 > 60 > night.mean()
  assert min(day.std(), night.std()) > 10
  curves = [tab.locator("[data-chart]").first for tab in (light, dark)]
  at_night = seen(curves[1], tmp_path / "night.png")
  light.emulate_media(color_scheme="dark")
  assert until(light, lambda: np.abs(seen(curves[0], tmp_path / "later.png") - at_night).max() <= 2)


def test_report_is_smaller_than_3_megabytes(report):
  megabytes = report.stat().st_size / 1e6
  print(f"{megabytes:.1f} MB")
  assert megabytes < 3
