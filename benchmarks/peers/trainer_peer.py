"""peft with transformers' Trainer: prompts masked in the labels, rows padded to the longest of their batch."""

import transformers
from datasets import Dataset
from training_common import arguments, built, main
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments


def run(work, folder, clock):
    """Train on the work's rows, in order."""
    model, tokenizer, adam, schedule = built(work)
    rows = [row for step in work["steps"] for row in step]
    dataset = Dataset.from_list(
        [{"input_ids": prompt + rest, "labels": [-100] * len(prompt) + rest} for prompt, rest in rows]
    )
    Trainer(
        model=model, args=TrainingArguments(**arguments(work, folder)), train_dataset=dataset,
        data_collator=DataCollatorForSeq2Seq(tokenizer), optimizers=(adam, schedule), callbacks=[clock],
    ).train()  # fmt: skip


main("peft + transformers Trainer", transformers.__version__, run)
