"""A real browser before a real gateway: Debian's Chromium, kept to loopback."""

from __future__ import annotations

import contextlib
import shutil

import pytest

#: Names other than the loopback address do not resolve, so that nothing can leave the machine unseen.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
TELL_VIOLATIONS = """
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
"""


@contextlib.contextmanager
def browser():
    """Chromium, without a window. Skips where it is not installed."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", ALONE])
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def visiting(chromium, gateway, *, refused=(), away=False, **options):
    """A page of its own on /docs. At the end nothing may have been amiss: no error but of a response whose status is
    one of *refused*, or with *away* of connections that fail, no violation of the content security policy, no request
    to anywhere else.
    """
    context = chromium.new_context(viewport={"width": 1280, "height": 860}, **options)
    context.add_init_script(TELL_VIOLATIONS)
    context.set_default_timeout(15_000)
    page = context.new_page()
    amiss, requests = [], []
    page.on("pageerror", lambda error: amiss.append(f"exception: {error}"))
    page.on("console", lambda said: amiss.append(said.text) if said.type in ("error", "warning") else None)
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(f"{gateway}/docs")
        yield page
        expected = [f"the server responded with a status of {status} " for status in refused]
        expected += ["net::ERR_"] if away else []
        assert [one for one in amiss if not any(text in one for text in expected)] == []
        assert page.evaluate("window.violations") == []
        assert [url for url in requests if not url.startswith((f"{gateway}/", "blob:", "data:"))] == []
    finally:
        context.close()


def choose(page, model):
    page.get_by_role("navigation", name="Models").get_by_role("button", name=model).click()
    page.get_by_role("heading", name=model, level=1).wait_for()


def ask(page, mode="Wait"):
    page.get_by_role("group", name="How to ask").get_by_role("radio", name=mode).check(force=True)
    page.get_by_role("button", name="Ask").click()


def answer(page):
    return page.get_by_role("region", name="Answer")
