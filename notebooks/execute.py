"""Execute notebooks as they are committed: no progress bars, no times, and the answer's figure at the top.

    python notebooks/execute.py 03          executes, tidies and writes notebooks/03_*.ipynb
    python notebooks/execute.py --tidy 03   tidies what was executed in Jupyter

The cell tagged `answer` draws the figure that the first cell shows as `attachment:answer.png`.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
CELL_SECONDS = 1500
WIDGET = "application/vnd.jupyter.widget-view+json"


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Drop widgets and times, and put the answer's picture and its words into the first cell."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([output for output in cell.outputs if WIDGET not in output.get("data", {})])
    first = notebook.cells[0]
    shown = next(output for output in answers(notebook) if "image/png" in output.data)
    first.attachments = {"answer.png": {"image/png": shown.data["image/png"]}}
    lines = first.source.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("!["))
    words = shown.metadata["image/png"]["alt"].replace("[", "(").replace("]", ")")
    lines[place] = f"![{words}](attachment:answer.png)"
    first.source = "\n".join(lines)


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return outputs with what was printed in one go as one: a kernel sends it in as many parts as it likes."""
    whole: list[nbformat.NotebookNode] = []
    for output in outputs:
        before = whole[-1] if whole else {}
        if output.output_type == "stream" and before.get("name") == output.name:
            before.text += output.text
        else:
            whole.append(output)
    return whole


def answers(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the outputs of the cell that is tagged `answer`."""
    (cell,) = [cell for cell in notebook.cells if "answer" in cell.metadata.get("tags", [])]
    return [output for output in cell.outputs if "data" in output]


def main() -> None:
    """Execute, or only tidy, the notebooks whose numbers are given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="+", help="such as 03")
    parser.add_argument("--tidy", action="store_true", help="execute nothing")
    asked = parser.parse_args()
    os.environ["TQDM_DISABLE"] = "1"
    for number in asked.numbers:
        (path,) = FOLDER.glob(f"{number}_*.ipynb")
        notebook = nbformat.read(path, as_version=4)
        if not asked.tidy:
            where = {"metadata": {"path": str(FOLDER)}}
            NotebookClient(notebook, timeout=CELL_SECONDS, resources=where).execute()
            nbformat.write(notebook, path)  # kept, whatever tidying says of its first cell
        tidy(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
