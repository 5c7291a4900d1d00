"""Pretraining and supervised fine-tuning in a plain Lightning Trainer; half a minute on a CPU.

    python examples/train_in_python.py

The modules and data modules are ordinary ones of Lightning. What ``fit`` adds besides is callbacks,
of which two are used here: one makes dropout and resuming exact, the other writes the artefact.
"""

import sys
from functools import partial
from pathlib import Path

from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from transformers import AutoModelForCausalLM, AutoTokenizer

from instructgpt import (
    BPE,
    Cosine,
    DemonstrationDataModule,
    ExportArtefact,
    PaperAdam,
    SFTModule,
    StepSeed,
    TextDataModule,
)

EXAMPLES = Path(__file__).parent
GPT = {"model_type": "gpt2", "n_layer": 2, "n_embd": 128, "n_head": 4, "n_positions": 256}


def train(model: LightningModule, data: LightningDataModule, folder: Path, epochs: int) -> str:
    """Fit, and return the folder of the artefact, which the next stage starts from."""
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=1.0,
        default_root_dir=folder,
        callbacks=[StepSeed(0), ExportArtefact(config={})],
        use_distributed_sampler=False,  # the data modules share rows out themselves
        inference_mode=False,
        check_val_every_n_epoch=epochs,
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    print(f"{folder.name}: val/loss {float(trainer.callback_metrics['val/loss']):.2f}")
    return str(folder / "export")


def main(output: str = "runs/python") -> None:
    """Train both stages and let transformers answer with the result."""
    seed_everything(0, verbose=False)
    pretrained = train(
        SFTModule(architecture=GPT, dropout=0.0, optimizer=partial(PaperAdam, lr=2e-3)),
        TextDataModule(
            train=str(EXAMPLES / "text.jsonl"),
            validation=0.1,
            bpe=BPE(vocab_size=512),
            template="instruction",
            block_size=64,
        ),
        Path(output, "pretrain"),
        epochs=60,
    )
    tuned = train(
        SFTModule(pretrained, optimizer=partial(PaperAdam, lr=2e-3), schedule=Cosine()),
        DemonstrationDataModule(
            train=str(EXAMPLES / "demonstrations.jsonl"),
            validation=0.15,
            tokenizer=pretrained,
            batch_size=8,
            max_prompt_tokens=64,
            max_response_tokens=32,
        ),
        Path(output, "sft"),
        epochs=6,
    )
    tokenizer = AutoTokenizer.from_pretrained(tuned)
    policy = AutoModelForCausalLM.from_pretrained(tuned)
    # The template that the artefact's README.md shows:
    text = "### Instruction:\nWhat does the cow say?\n\n### Response:\n"
    prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    answer = policy.generate(**prompt, max_new_tokens=16, do_sample=False)
    print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))


if __name__ == "__main__":
    main(*sys.argv[1:])
