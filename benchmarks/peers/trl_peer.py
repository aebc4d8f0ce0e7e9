"""peft with TRL's SFTTrainer, loss on completions only."""

import trl
from datasets import Dataset
from training_common import arguments, built, main
from trl import SFTConfig, SFTTrainer


def run(work, folder, clock):
    """Train on the work's rows, in order."""
    model, tokenizer, adam, schedule = built(work)
    rows = [row for step in work["steps"] for row in step]
    dataset = Dataset.from_list(
        [{"input_ids": prompt + rest, "completion_mask": [0] * len(prompt) + [1] * len(rest)} for prompt, rest in rows]
    )
    config = SFTConfig(
        **arguments(work, folder), completion_only_loss=True, max_length=work["width"], gradient_checkpointing=False
    )
    SFTTrainer(
        model=model,
        args=config,
        train_dataset=dataset,
        processing_class=tokenizer,
        optimizers=(adam, schedule),
        callbacks=[clock],
    ).train()


main("peft + TRL SFTTrainer", trl.__version__, run)
