"""A small chat model in the files that SmolLM2-Instruct has, made without a network.

A Llama-like network with grouped heads and a tied head; a byte-level BPE that splits digits, with
EOS = the end of a turn = padding; a chat template with a system message of its own.
"""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

UNKNOWN, BEGIN, END = SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SYSTEM = "You are a helpful AI assistant."
CHAT = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = [
    f"{BEGIN}system\n{SYSTEM}{END}\n",
    f"{BEGIN}user\nWhat is the name of the river in the north of the country?{END}\n",
    f"{BEGIN}assistant\nThe river is called the Tweed. It is 97 miles long.{END}\n",
    f"{BEGIN}user\nWrite a short story about a fox and a dog that are friends.{END}\n",
    f"{BEGIN}assistant\nOnce there was a fox who said hello to the dog every morning.{END}\n",
]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def chat_tokenizer(texts=TEXTS, vocab_size=384):
    """The tokenizer.

    Args:
        texts: that it is trained on.
        vocab_size: tokens at most; 259 of them are bytes and special ones.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=SIZES["max_position_embeddings"],
    )
    found.chat_template = CHAT
    return found


def make_chat_model(folder, seed=0, texts=TEXTS, vocab_size=384, **sizes):
    """Write a chat model that has learned nothing; its folder.

    Args:
        folder: to write.
        seed: of its weights.
        texts: that the tokenizer is trained on.
        vocab_size: tokens at most.
        sizes: of the network, beside or instead of ``SIZES``, such as ``initializer_range``.
    """
    tokenizer = chat_tokenizer(texts, vocab_size)
    known = {"initializer_range": 0.2, "rope_theta": 1e5, **SIZES, **sizes}
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        **known,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
