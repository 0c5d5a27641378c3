"""Is a mail readable on a phone and in the dark, and does it load nothing?"""

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from trading_ops.notifications.channels.email import mail_of
from trading_ops.notifications.text import message_of
from trading_ops_tests.notifications.channels.test_incidents import OPENED, REPORT
from trading_ops_tests.ui.test_ui import chromium  # noqa: F401

LONG = "b" * 300
LINK = "http://127.0.0.1:3000/runs/4d2f?a=1&b=%282%29"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_a_mail_fits_a_phone_shows_its_numbers_and_asks_for_nothing(
    chromium: Browser,  # noqa: F811
    tmp_path: Path,
    width: int,
    scheme: str,
) -> None:
    numbers = {**OPENED.numbers, "audit_heads": {"trades": LONG}}
    alert = replace(OPENED, numbers=numbers)
    mail = mail_of(alert, message_of(alert, possible_duplicate=True), "ops@example.org", ["a@example.org"])
    path = tmp_path / "mail.html"
    path.write_text(mail.get_body(("html",)).get_content(), encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 700}, offline=True, color_scheme=scheme)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", level=1)).to_have_text("rsi lost 12.3 %")
    expect(page.get_by_role("row").filter(has_text="daily loss")).to_contain_text("12.3 %")
    expect(page.get_by_text("possible duplicate")).to_be_visible()
    expect(page.get_by_role("link", name="Open the run")).to_have_attribute("href", LINK)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert asked == [path.as_uri()]
    contrast = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    assert contrast == (
        ["rgb(31, 35, 40)", "rgb(242, 243, 245)"] if scheme == "light" else ["rgb(230, 237, 243)", "rgb(13, 17, 23)"]
    )
    context.close()


def test_a_report_shows_its_picture_with_words_for_who_cannot_see_it(chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    mail = mail_of(REPORT, message_of(REPORT, possible_duplicate=False), "ops@example.org", ["a@example.org"])
    (picture,) = [part for part in mail.walk() if part.get_content_type() == "image/png"]
    (tmp_path / "picture.png").write_bytes(picture.get_content())
    page_text = mail.get_body(("html",)).get_content()  # type: ignore[union-attr]
    (tmp_path / "mail.html").write_text(page_text.replace(f"cid:{picture['Content-ID'].strip('<>')}", "picture.png"))
    page = chromium.new_page(viewport={"width": 360, "height": 700})
    page.goto((tmp_path / "mail.html").as_uri())
    image = page.get_by_alt_text("Portfolio")
    expect(image).to_be_visible()
    assert image.evaluate("image => [image.naturalWidth, image.clientWidth < 360]") == [960, True]
    page.close()
